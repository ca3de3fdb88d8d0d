"""The evaluation step as it is called: the files that it promises, and what stands in them."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from latentrec.catalog import Catalogue
from latentrec.data import Dataset
from latentrec.evaluation import Champion, EvaluateConfig, GateDecision, evaluate
from latentrec.storage import ArtifactWriter, read_manifest
from tests.errors import refused

QUICK = EvaluateConfig(n_resamples=200, cost_samples=4, example_users=3)


@pytest.fixture
def evaluated(dataset, make_model, tmp_path):
    models = {"weak": make_model("weak", skill=0.1), "strong": make_model("strong", skill=0.9)}
    evaluate(QUICK, dataset=dataset, models=models, output=tmp_path / "evaluation")
    return tmp_path / "evaluation"


def metrics_of(directory):
    return json.loads((directory / "metrics.json").read_text())


def test_directory_holds_what_the_contract_promises(evaluated):
    manifest = read_manifest(evaluated, "evaluation")
    names = {"metrics.json", "comparison.json", "gate.json", "report.html", "report.md", "costs.json"}
    predictions = {f"predictions_{model}.parquet" for model in ("popularity", "weak", "strong")}
    assert set(manifest.files) == names | predictions
    assert manifest.counts == {"samples": 240, "users": 120, "models": 3}


def test_every_metric_has_value_and_interval(evaluated):
    table = metrics_of(evaluated)
    assert list(table) == sorted(["popularity", "weak", "strong"])
    for metrics in table.values():
        for level in ("", "item_"):
            for name in ("hr", "ndcg"):
                for k in (1, 5, 10):
                    entry = metrics[f"{level}{name}_at_{k}"]
                    assert set(entry) == {"value", "low", "high"}
                    assert entry["low"] <= entry["value"] <= entry["high"]
        assert metrics["latency_ms_p50"]["value"] > 0


def test_metrics_can_be_recomputed_from_the_predictions(evaluated, dataset):
    catalogue = Catalogue.from_dataset(Dataset(dataset))
    for model, metrics in metrics_of(evaluated).items():
        rows = pq.read_table(evaluated / f"predictions_{model}.parquet").to_pylist()
        hits, gains, item_hits = [], [], []
        for row in rows:
            titles = list(dict.fromkeys(int(catalogue.title_ids[item]) for item in row["ranked"]))[:10]
            truth = int(catalogue.title_ids[row["target"]])
            hits.append(truth in titles)
            gains.append(1 / np.log2(2 + titles.index(truth)) if truth in titles else 0.0)
            item_hits.append(row["target"] in row["ranked"][:10])
            assert len(titles) == 10
        assert metrics["hr_at_10"]["value"] == pytest.approx(np.mean(hits))
        assert metrics["ndcg_at_10"]["value"] == pytest.approx(np.mean(gains))
        assert metrics["item_hr_at_10"]["value"] == pytest.approx(np.mean(item_hits))


def test_popularity_is_the_floor_even_when_no_such_model_is_given(evaluated, dataset):
    data = Dataset(dataset)
    counts = Catalogue.from_dataset(data).train_counts
    first = pq.read_table(evaluated / "predictions_popularity.parquet")["ranked"][0].as_py()
    free = np.setdiff1d(np.arange(len(counts)), data.split("test").history(0))
    assert counts[first].tolist() == sorted(counts[free].tolist(), reverse=True)[: len(first)]


def test_the_last_model_given_is_the_challenger(evaluated):
    decision = GateDecision.read(evaluated / "gate.json")
    assert decision.promote
    assert decision.challenger_name == "strong"


def test_same_work_gives_the_same_fingerprint(evaluated, dataset, make_model, tmp_path):
    models = {"weak": make_model("weak", skill=0.1), "strong": make_model("strong", skill=0.9)}
    again = evaluate(QUICK, dataset=dataset, models=models, output=tmp_path / "again")
    assert again.fingerprint == read_manifest(evaluated).fingerprint


def test_champion_is_scored_in_the_same_run_and_compared(dataset, make_model, tmp_path):
    champion = Champion(make_model("held", skill=0.9, n_known=30), label="latentr3 v4", version="4")
    models = {"new": make_model("new", skill=0.2)}
    evaluate(QUICK, dataset=dataset, models=models, output=tmp_path / "e", champion=champion)
    decision = GateDecision.read(tmp_path / "e" / "gate.json")
    assert not decision.promote
    assert decision.expected_champion == "4"
    assert decision.n_samples == 240
    targets = Dataset(dataset).split("test").targets
    assert decision.champion_unscorable_share == pytest.approx(np.mean(targets >= 30))
    assert (tmp_path / "e" / "predictions_latentr3_v4.parquet").exists()
    comparison = json.loads((tmp_path / "e" / "comparison.json").read_text())
    assert {row["model"] for row in comparison["against_champion"]} == {"popularity", "new"}


def test_champion_of_another_dataset_is_judged_on_later_samples_only(dataset, make_model, tmp_path):
    stamps = Dataset(dataset).split("test").timestamps
    end = int(np.quantile(stamps, 0.75))
    held = make_model("held", skill=0.2, dataset_fingerprint="another", train_end=end)
    evaluate(
        QUICK,
        dataset=dataset,
        models={"new": make_model("new", skill=0.9)},
        output=tmp_path / "e",
        champion=Champion(held),
    )
    decision = GateDecision.read(tmp_path / "e" / "gate.json")
    assert decision.n_samples == int((stamps > end).sum())
    assert 0 < decision.n_samples < len(stamps)


def test_champion_that_may_have_seen_every_sample_blocks_promotion(dataset, make_model, tmp_path):
    held = make_model("held", skill=0.1, dataset_fingerprint="another", train_end=10**12)
    models = {"new": make_model("new", skill=0.9)}
    evaluate(QUICK, dataset=dataset, models=models, output=tmp_path / "e", champion=Champion(held))
    decision = GateDecision.read(tmp_path / "e" / "gate.json")
    assert (decision.promote, decision.code) == (False, "not_comparable")
    assert "another" not in decision.reason


@pytest.mark.parametrize("leaking", ["sasrec", "new"])
def test_any_model_that_may_have_seen_test_samples_is_warned_about_and_they_do_not_count(
    dataset, make_model, tmp_path, caplog, leaking
):
    stamps = Dataset(dataset).split("test").timestamps
    end = int(np.quantile(stamps, 0.75))
    foreign = {"dataset_fingerprint": "another", "train_end": end}
    models = {
        name: make_model(name, skill=skill, system=system, **(foreign if name == leaking else {}))
        for name, skill, system in (("sasrec", 0.3, "sasrec"), ("new", 0.9, "oracle"))
    }
    evaluate(QUICK, dataset=dataset, models=models, output=tmp_path / "e")
    decision = GateDecision.read(tmp_path / "e" / "gate.json")
    assert decision.n_samples == int((stamps > end).sum())
    assert decision.left_out_by == {leaking: int((stamps <= end).sum())}
    assert f"{leaking} may have trained on" in caplog.text
    for name in ("report.md", "report.html"):
        assert f"{leaking} may have trained on" in (tmp_path / "e" / name).read_text()


def test_a_model_started_from_one_of_later_data_leaks_too(dataset, make_model, tmp_path):
    late = make_model("late", skill=0.9, train_end=10**12)
    evaluate(QUICK, dataset=dataset, models={"late": late}, output=tmp_path / "e")
    decision = GateDecision.read(tmp_path / "e" / "gate.json")
    assert (decision.code, decision.n_samples) == ("not_comparable", 0)


@pytest.mark.parametrize("changes", [{"split": "valid"}, {"split": "train"}, {"sampled_negatives": 9}])
def test_figures_that_are_not_those_of_serving_promote_nothing(dataset, make_model, tmp_path, changes):
    config = EvaluateConfig(n_resamples=100, cost_samples=0, **changes)
    evaluate(config, dataset=dataset, models={"m": make_model("m", skill=0.9)}, output=tmp_path / "e")
    assert GateDecision.read(tmp_path / "e" / "gate.json").code == "not_comparable"


def test_sampled_negatives_rank_the_target_among_them_and_are_marked(dataset, make_model, tmp_path):
    config = EvaluateConfig(n_resamples=100, cost_samples=0, sampled_negatives=5)
    models = {"m": make_model("m", skill=0.5)}
    evaluate(config, dataset=dataset, models=models, output=tmp_path / "e")
    tables = [
        pq.read_table(tmp_path / "e" / f"predictions_{name}.parquet").to_pylist()
        for name in ("popularity", "m")
    ]
    samples = Dataset(dataset).split("test")
    for index, rows in enumerate(zip(*tables, strict=True)):
        candidates = {frozenset(row["ranked"]) for row in rows}
        assert len(candidates) == 1, "every model ranks the same candidates"
        (shown,) = candidates
        assert rows[0]["target"] in shown
        assert len(shown) == 6
        assert not set(samples.history(index).tolist()) & (shown - {rows[0]["target"]})
    assert metrics_of(tmp_path / "e")["m"]["hr_at_10"]["value"] == 1.0
    assert "SAMPLED EVALUATION" in (tmp_path / "e" / "report.md").read_text()


def test_another_shops_champion_is_not_scored_and_the_cure_is_named(dataset, make_model, tmp_path):
    held = make_model("held", skill=0.9)
    with ArtifactWriter(tmp_path / "other", "model", {}) as writer:
        shutil.copy(held / "model.json", writer.path / "model.json")
        shutil.copy(held / "model.safetensors", writer.path / "model.safetensors")
        keys = [f"X{number}" for number in range(30)]
        Catalogue.from_items(keys, keys).write(writer.path / "items.parquet")
    champion = Champion(tmp_path / "other", label="latentr3 v4", version="4")
    models = {"new": make_model("new", skill=0.9)}
    evaluate(QUICK, dataset=dataset, models=models, output=tmp_path / "e", champion=champion)
    decision = GateDecision.read(tmp_path / "e" / "gate.json")
    assert (decision.code, decision.champion_overlap) == ("not_comparable", 0.0)
    assert "latentr3 v4" not in metrics_of(tmp_path / "e")


def test_a_baseline_that_is_better_refuses_the_challenger(dataset, make_model, tmp_path):
    models = {
        "sasrec": make_model("sasrec", skill=0.9, system="sasrec"),
        "new": make_model("new", skill=0.5),
    }
    evaluate(QUICK, dataset=dataset, models=models, output=tmp_path / "e")
    assert GateDecision.read(tmp_path / "e" / "gate.json").code == "below_baseline"
    config = EvaluateConfig(n_resamples=200, cost_samples=0, floor="popularity")
    evaluate(config, dataset=dataset, models=models, output=tmp_path / "p")
    assert GateDecision.read(tmp_path / "p" / "gate.json").promote


def test_training_runs_of_one_recipe_are_compared_together(dataset, make_model, tmp_path):
    runs = [make_model(f"seed{number}", skill=skill) for number, skill in enumerate((0.8, 0.5))]
    held = Champion(make_model("held", skill=0.3), "held", "1")
    evaluate(QUICK, dataset=dataset, models={"new": runs}, output=tmp_path / "e", champion=held)
    decision = GateDecision.read(tmp_path / "e" / "gate.json")
    table = metrics_of(tmp_path / "e")
    mean = np.mean([table[name]["ndcg_at_10"]["value"] for name in ("new", "new.run2")])
    assert decision.n_runs == 2
    assert decision.challenger == pytest.approx(mean)
    inputs = read_manifest(tmp_path / "e").inputs
    assert inputs["model:new"] == read_manifest(runs[0]).fingerprint


def test_predictions_carry_the_shops_own_keys(evaluated, dataset):
    data = Dataset(dataset)
    rows = pq.read_table(evaluated / "predictions_strong.parquet").to_pylist()
    for row in rows[:20]:
        assert row["ranked_keys"] == [data.item_keys[item] for item in row["ranked"]]
        assert row["target_key"] == data.item_keys[row["target"]]
        assert row["user_key"] == data.users["user_key"][row["user_id"]].as_py()


def test_report_tells_more_than_accuracy(evaluated):
    for metrics in metrics_of(evaluated).values():
        for name in ("novelty", "popularity_lift", "long_tail_share", "popularity_miscalibration", "gini"):
            assert f"{name}_at_10" in metrics
    text = (evaluated / "report.md").read_text()
    assert "Beyond accuracy" in text
    assert "Popularity lift by users' taste" in text


def test_own_items_are_left_out_as_in_serving(dataset, make_model, tmp_path):
    config = EvaluateConfig(n_resamples=100, cost_samples=0)
    assert config.exclude_history
    models = {"new": make_model("new", skill=0.9)}
    evaluate(config, dataset=dataset, models=models, output=tmp_path / "e")
    histories = Dataset(dataset).split("test").histories()
    for name in ("popularity", "new"):
        ranked = pq.read_table(tmp_path / "e" / f"predictions_{name}.parquet")["ranked"].to_pylist()
        assert not any(set(items) & set(own.tolist()) for items, own in zip(ranked, histories, strict=True))
        assert metrics_of(tmp_path / "e")[name]["repeat_share_at_10"]["value"] == 0


def test_a_subset_of_users_is_the_same_for_every_model(dataset, make_model, tmp_path):
    config = EvaluateConfig(n_resamples=100, cost_samples=0, max_users=15)
    models = {"new": make_model("new", skill=0.9)}
    evaluate(config, dataset=dataset, models=models, output=tmp_path / "e")
    users = [
        pq.read_table(tmp_path / "e" / f"predictions_{name}.parquet")["user_id"].to_pylist()
        for name in ("popularity", "new")
    ]
    assert users[0] == users[1]
    assert len(set(users[0])) == 15


def test_figures_of_every_model_reach_the_metric_logger(dataset, make_model, tmp_path):
    seen = {}

    class Recorder:
        def log_metrics(self, metrics, step):
            seen.update(metrics)

    models = {"new": make_model("new", skill=0.9)}
    evaluate(QUICK, dataset=dataset, models=models, output=tmp_path / "e", metric_logger=Recorder())
    assert seen["new/ndcg_at_10"] == metrics_of(tmp_path / "e")["new"]["ndcg_at_10"]["value"]
    assert "popularity/hr_at_5" in seen


@pytest.mark.parametrize(
    ("changes", "code", "named"),
    [
        ({"challenger": "nobody"}, "evaluation.unknown_model", ("evaluate.challenger", "'nobody'", "new")),
        ({"decoding": "d3", "alpha": 0.9}, "decoding.needs_assistant", ("d3", "0.9", "--assistant")),
        ({"assistant": "nobody"}, "evaluation.unknown_model", ("evaluate.assistant", "'nobody'")),
    ],
)
def test_names_that_do_not_exist_are_refused(dataset, make_model, tmp_path, changes, code, named):
    models = {"new": make_model("new", skill=0.9)}
    with refused(code, *named):
        evaluate(EvaluateConfig(**changes), dataset=dataset, models=models, output=tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_a_name_that_cannot_be_a_file_is_refused(dataset, make_model, tmp_path):
    with refused("evaluation.bad_name", "/up", "../up"):
        evaluate(QUICK, dataset=dataset, models={"../up": make_model("m", skill=1)}, output=tmp_path / "e")


@pytest.mark.parametrize(
    ("field", "value"), [("beam_width", "0"), ("alpha", 1.5), ("n_resamples", 5), ("promotion_margin", -1.0)]
)
def test_settings_out_of_range_are_refused_by_name(field, value):
    with refused("config.invalid", f"evaluate.{field}", str(value)):
        EvaluateConfig(**{field: value})
