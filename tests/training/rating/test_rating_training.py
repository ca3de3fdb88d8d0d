"""The trainers at the smallest size: what they write, that they resume exactly, what they refuse."""

import json

import numpy as np
import pytest

from latentrec.data.dataset import Dataset
from latentrec.models import read_model
from latentrec.models.rating.text_predictor import TextRatingPredictor
from latentrec.prompts.rating_examples import RatingTask
from latentrec.prompts.rating_format import RatingScale
from latentrec.training.rating.cold_start import train_cold_start
from latentrec.training.rating.pretrain_config import PretrainRatingConfig
from latentrec.training.rating.pretraining import pretrain_rating
from latentrec.training.rating.rating_config import ColdStartConfig, RatingGRPOConfig
from latentrec.training.rating.rating_grpo import train_rating_grpo
from latentrec.training.rating.traces import TracesConfig, make_traces
from tests.errors import refused
from tests.training.rating.saved_weights import same, weights

GRPO = RatingGRPOConfig(
    max_steps=6,
    prompts_per_step=2,
    num_generations=4,
    max_completion_tokens=48,
    measured_prompts=8,
    save_steps=2,
)
COLD = ColdStartConfig(num_train_epochs=1, batch_size=8, learning_rate=3e-3, measured_prompts=8, save_steps=3)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class KillingLogger:
    """A metric_logger that ends the process's work when a figure of one step arrives."""

    def __init__(self, prefix, step):
        self.prefix, self.step = prefix, step

    def log_metrics(self, metrics, step):
        if step == self.step and any(name.startswith(self.prefix) for name in metrics):
            raise Killed

    def log_params(self, params):
        pass

    def log_artifact(self, path):
        pass


class Recorder:
    def __init__(self):
        self.figures = []

    def log_metrics(self, metrics, step):
        self.figures.append((step, dict(metrics)))

    def log_params(self, params):
        pass

    def log_artifact(self, path):
        pass


@pytest.fixture(scope="session")
def traces(rating_dataset, tmp_path_factory):
    path = tmp_path_factory.mktemp("traces") / "traces.jsonl"
    make_traces(TracesConfig(samples=40), dataset=rating_dataset, output=path)
    return path


@pytest.fixture(scope="session")
def trained(rating_dataset, base, tmp_path_factory):
    output, recorder = tmp_path_factory.mktemp("rating-grpo") / "model", Recorder()
    train_rating_grpo(GRPO, dataset=rating_dataset, model=base, output=output, metric_logger=recorder)
    return output, recorder


def test_grpo_logs_each_part_of_the_reward_while_it_trains(trained):
    output, recorder = trained
    by_step = {step: figures for step, figures in recorder.figures if "train/reward" in figures}
    assert sorted(by_step) == list(range(1, GRPO.max_steps + 1))
    for figures in by_step.values():
        parts = figures["train/reward_format"] + figures["train/reward_answer"]
        assert figures["train/reward"] == pytest.approx(parts, abs=1e-5)
        assert figures["train/format_valid"] == pytest.approx(figures["train/reward_format"] + 0.5, abs=1e-5)
    curve = json.loads((output / "training_curve.json").read_text())
    assert [entry["step"] for entry in curve] == sorted(by_step)


def test_grpo_changes_the_weights(base, trained):
    assert not same(weights(base), weights(trained[0]))


def test_grpo_states_validity_before_and_after_on_the_same_prompts(trained):
    info, _ = read_model(trained[0])
    assert info.system == "reczero"
    for name in ("start_format_valid", "end_format_valid", "start_reward", "end_reward"):
        assert name in info.metrics
    for when in ("start", "end"):
        faults = [value for name, value in info.metrics.items() if name.startswith(f"{when}_fault_")]
        assert sum(faults) == pytest.approx(1 - info.metrics[f"{when}_format_valid"])
    assert any("placeholder" in note for note in info.notes)


def test_killed_grpo_ends_with_the_very_weights_of_one_that_was_not(rating_dataset, base, trained, tmp_path):
    root = str(tmp_path / "checkpoints")
    arguments = {"dataset": rating_dataset, "model": base, "checkpoint_root": root}
    with pytest.raises(Killed):
        train_rating_grpo(
            GRPO, output=tmp_path / "out", metric_logger=KillingLogger("train/reward", 5), **arguments
        )
    assert not (tmp_path / "out").exists()
    files = [path.name for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()]
    assert files
    assert {name.rsplit(".", 1)[-1] for name in files} <= {"json", "safetensors"}
    recorder = Recorder()
    train_rating_grpo(GRPO, output=tmp_path / "out", metric_logger=recorder, **arguments)
    resumed = [step for step, figures in recorder.figures if "train/reward" in figures]
    assert resumed == [5, 6]
    assert same(weights(trained[0]), weights(tmp_path / "out"))
    curve = [
        json.loads((path / "training_curve.json").read_text()) for path in (trained[0], tmp_path / "out")
    ]
    assert [entry["reward"] for entry in curve[0]] == [entry["reward"] for entry in curve[1]]


def test_killed_pretraining_and_cold_start_resume_exactly(tiny, rating_dataset, base, traces, tmp_path):
    config = tiny.replace(max_steps=6, save_steps=2, measured_prompts=4)
    cold = COLD.replace(save_steps=2)
    for name, prefix, train in (
        ("pretrain", "train/loss", lambda **to: pretrain_rating(config, dataset=rating_dataset, **to)),
        (
            "cold",
            "train/loss",
            lambda **to: train_cold_start(cold, dataset=rating_dataset, traces=traces, model=base, **to),
        ),
    ):
        root = str(tmp_path / f"{name}-checkpoints")
        train(output=tmp_path / f"{name}-whole")
        with pytest.raises(Killed):
            train(
                output=tmp_path / f"{name}-cut", metric_logger=KillingLogger(prefix, 3), checkpoint_root=root
            )
        train(output=tmp_path / f"{name}-cut", checkpoint_root=root)
        assert same(weights(tmp_path / f"{name}-whole"), weights(tmp_path / f"{name}-cut"))


def test_cold_start_finds_its_checkpoints_with_another_interval_between_them(
    rating_dataset, base, traces, tmp_path
):
    arguments = {"dataset": rating_dataset, "traces": traces, "model": base, "output": tmp_path / "cold"}
    for save_steps in (1, 2):
        with pytest.raises(Killed):
            train_cold_start(
                COLD.replace(save_steps=save_steps),
                metric_logger=KillingLogger("train/loss", 3),
                checkpoint_root=str(tmp_path / "checkpoints"),
                **arguments,
            )
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def test_cold_start_learns_its_traces_and_grpo_after_it_is_recone(rating_dataset, base, traces, tmp_path):
    config = COLD.replace(num_train_epochs=4)
    train_cold_start(config, dataset=rating_dataset, traces=traces, model=base, output=tmp_path / "cold")
    info, _ = read_model(tmp_path / "cold")
    curve = json.loads((tmp_path / "cold" / "training_curve.json").read_text())
    assert curve[-1]["loss"] < 0.9 * curve[0]["loss"]
    assert any("40 reasoning traces, written by: template" in note for note in info.notes)
    quick = GRPO.replace(max_steps=1)
    train_rating_grpo(quick, dataset=rating_dataset, model=tmp_path / "cold", output=tmp_path / "recone")
    after, _ = read_model(tmp_path / "recone")
    assert after.system == "recone"
    assert after.metrics["start_format_valid"] == pytest.approx(info.metrics["end_format_valid"])


def test_trace_of_a_test_sample_is_refused(rating_dataset, base, traces, tmp_path):
    held_out = RatingTask(Dataset(rating_dataset)).examples("test")[0]
    record = json.loads(traces.read_text().splitlines()[0])
    path = tmp_path / "leak.jsonl"
    path.write_text(json.dumps({**record, "row": held_out.row}))
    with refused("traces.other_dataset"):
        train_cold_start(COLD, dataset=rating_dataset, traces=path, model=base, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_trace_that_contradicts_the_dataset_is_refused(rating_dataset, base, traces, tmp_path):
    record = json.loads(traces.read_text().splitlines()[0])
    shifted = record["rating"] - 0.5 if record["rating"] > 2 else record["rating"] + 0.5
    path = tmp_path / "wrong.jsonl"
    path.write_text(json.dumps({**record, "rating": shifted}))
    with refused("traces.other_dataset"):
        train_cold_start(COLD, dataset=rating_dataset, traces=path, model=base, output=tmp_path / "out")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"num_generations": 1}, ("num_generations", "1", "2")),
        ({"temperature": 0.0}, ("temperature", "0.0")),
        ({"learning_rate": -1.0}, ("learning_rate", "-1.0")),
        ({"per_device_train_batch_size": 7}, ("per_device_train_batch_size", "7", "64")),
        ({"max_error": 0.0}, ("max_error", "0.0")),
        ({"hidden_means": 1.5}, ("hidden_means", "1.5")),
        ({"reward_valid": -1.0}, ("-1.0", "-0.5")),
        ({"vllm_mode": "server"}, ("vllm_server_base_url", "''")),
        ({"profile": "fast"}, ("profile", "'fast'", "paper")),
    ],
)
def test_wrong_settings_are_refused_by_name(fields, named):
    with refused("config.invalid", "rating_grpo", *named):
        RatingGRPOConfig(**fields)


def test_paper_profile_holds_the_published_settings():
    paper = RatingGRPOConfig(profile="paper")
    assert (paper.learning_rate, paper.num_generations, paper.temperature, paper.beta) == (2e-6, 8, 1.0, 0.0)
    assert paper.num_train_epochs == 1
    assert paper.max_steps == 0
    assert RatingGRPOConfig(profile="paper", learning_rate=1e-5).learning_rate == 1e-5


def test_model_or_backbone_must_be_given_and_not_both(rating_dataset, base, tmp_path):
    with refused("config.conflict", "--model"):
        train_rating_grpo(GRPO, dataset=rating_dataset, output=tmp_path / "o")
    with refused("config.conflict", "--model"):
        train_rating_grpo(
            GRPO.replace(backbone=str(base)), dataset=rating_dataset, model=base, output=tmp_path / "o"
        )


def test_unknown_backbone_is_an_error_of_the_user(rating_dataset, tmp_path):
    with refused("backbone.unknown_name", "nowhere"):
        train_rating_grpo(
            GRPO.replace(backbone=str(tmp_path / "nowhere")), dataset=rating_dataset, output=tmp_path / "o"
        )


def test_lora_trains_adapters_and_writes_plain_weights(rating_dataset, base, tmp_path):
    config = GRPO.replace(max_steps=2, lora_rank=4, learning_rate=1e-2)
    train_rating_grpo(config, dataset=rating_dataset, model=base, output=tmp_path / "lora")
    assert weights(tmp_path / "lora").keys() == weights(base).keys()
    assert not same(weights(tmp_path / "lora"), weights(base))
    TextRatingPredictor.load(tmp_path / "lora").predict(
        RatingTask(Dataset(rating_dataset)).examples("test")[:2]
    )


def test_batch_and_order_do_not_change_greedy_answers(rating_dataset, base):
    predictor = TextRatingPredictor.load(base)
    examples = RatingTask(Dataset(rating_dataset)).examples("test")[:7]
    together = [answer.text for answer in predictor.predict(examples, batch_size=7)]
    alone = [predictor.predict([example])[0].text for example in examples]
    assert together == alone
    assert [answer.text for answer in predictor.predict(examples[::-1], batch_size=3)] == together[::-1]


def test_answer_that_does_not_end_is_no_prediction(rating_dataset, base):
    predictor = TextRatingPredictor.load(base)
    predictor.max_new_tokens = 2
    examples = RatingTask(Dataset(rating_dataset)).examples("test")[:4]
    for answer in predictor.predict(examples):
        assert np.isnan(answer.rating)
        assert answer.fault is not None


@pytest.mark.parametrize(
    ("given", "steps", "expected"), [(0.05, 200, 10), (0.05, 4, 1), (1, 200, 1), (30, 200, 30)]
)
def test_warmup_below_one_is_a_share_of_the_steps(given, steps, expected):
    assert ColdStartConfig(warmup_steps=given).warmup_of(steps) == expected


@pytest.mark.parametrize("cls", [PretrainRatingConfig, RatingGRPOConfig, ColdStartConfig, TracesConfig])
def test_scale_of_the_ratings_is_configured(cls):
    assert cls(rating_low=0, rating_high=10).scale == RatingScale(0, 10)


def test_a_kl_term_has_the_starting_model_as_its_reference(rating_dataset, base, tmp_path):
    """trl loads the reference by its name, and the model's files were a copy that is gone by then."""
    config = GRPO.replace(beta=0.5, max_steps=2)
    train_rating_grpo(config, dataset=rating_dataset, model=base, output=tmp_path / "out")
    curve = json.loads((tmp_path / "out" / "training_curve.json").read_text(encoding="utf-8"))
    assert curve[0]["kl"] == pytest.approx(0.0, abs=1e-6), "the first step begins at the reference"
    assert all("kl" in entry for entry in curve)


@pytest.mark.parametrize(
    ("config", "processes"),
    [(COLD, 3), (GRPO, 3), (COLD.replace(batch_size=6), 4), (GRPO.replace(per_device_train_batch_size=2), 8)],
)
def test_a_batch_that_processes_cannot_share_evenly_is_refused(config, processes):
    with refused("config.conflict", f"{processes} processes"):
        config.check_world(processes)
