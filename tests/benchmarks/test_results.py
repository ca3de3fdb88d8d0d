"""`make results`' machinery: commands are whole, no record is made twice, pages need only records."""

import json
import re
from argparse import ArgumentParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.controls import worker
from benchmarks.results import command, curves, page, records, run, score_models, stage2, validation
from benchmarks.results.datasets import DATASETS
from benchmarks.results.plan import CELLS
from benchmarks.results.pretrained import widened, write_backbone
from latentrec.core import add_config_arguments, config_from_namespace
from latentrec.data import Dataset, sample_at_most
from latentrec.decoding import MIXED
from latentrec.models.presets import PRESETS
from tests.fixtures.sequential_data import write_dataset
from tests.training.latentr3.latentr3_runs import grpo, sft, titles


@pytest.fixture
def own_records(tmp_path, monkeypatch):
    places = {"RECORDS": tmp_path / "docs/results", "ROOT": tmp_path, "TEST_LOG": tmp_path / "test-split.log"}
    for module in (records, run, page, curves, stage2):
        for name, place in places.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, place)
    monkeypatch.setattr(page, "PAGE", tmp_path / "docs/results.md")
    return tmp_path


def write_record(cell, seed, ranks, dataset="office", **more):
    path = records.record_path(dataset, cell, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    ranks = np.asarray(ranks, np.uint8)
    users = pa.array(np.arange(len(ranks)) // 2, pa.int32())
    pq.write_table(pa.table({"user_id": users, "title_rank": ranks}), path.with_suffix(".parquet"))
    record = {
        "command": "sft",
        "dataset_fingerprint": "f" * 64,
        "curve": [{"step": 1.0, "loss": 2.0}, {"step": 2.0, "loss": 1.5}],
        "validation": {"ndcg_at_10": 0.5},
        "alpha": None,
        "seconds": {"train": 3.0, "judge": 1.0},
        "machine": "a machine",
        "versions": {"torch": "2"},
    }
    path.write_text(json.dumps(record | more))


def test_every_cell_s_models_are_made_by_cells_it_needs():
    for cell in CELLS.values():
        read = {word[len("{model:") : -1] for word in cell.command if word.startswith("{model:")}
        read |= {cell.model} if cell.model else set()
        read |= {"sasrec"} if cell.decoding in MIXED else set()
        assert read <= set(cell.needs), cell.name
        assert cell.command or cell.model


def test_flags_of_a_cell_come_after_those_of_its_dataset(tmp_path):
    runner = run.Runner(tmp_path, tmp_path)
    plan = DATASETS["games-small"]
    words = runner._command(plan, CELLS["sasrec-deep"], "D", "O", 7)
    assert words[0] == "train-sequential"
    assert words.index("--num-train-epochs") < words.index("--layers")
    assert words[-2:] == ["--seed", "7"]
    shown = runner._command(plan, CELLS["latentr3"], "D", "O", 7, shown=True)
    assert shown[shown.index("--model") + 1] == "LATENTR3-SFT"


@pytest.mark.parametrize("plan", DATASETS.values(), ids=lambda plan: plan.name)
def test_every_command_of_a_cell_is_one_that_its_configuration_takes(plan):
    for cell in CELLS.values():
        if not cell.command:
            continue
        config_class, _ = (worker._named(name) for name in worker.COMMANDS[cell.command[0]])
        parser = ArgumentParser(exit_on_error=False)
        for flag in ("--model", "--init-from"):
            parser.add_argument(flag)
        add_config_arguments(parser, config_class)
        words = [*plan.limits.get(cell.command[0], ()), *cell.command[1:]]
        config_from_namespace(config_class, parser.parse_args(words))


def test_finished_cell_is_not_run_again(own_records):
    write_record("bigrec", 1, [1, 0])
    assert run.Runner(own_records, own_records).run("office", "bigrec", 1) is False


def test_page_compares_the_seeds_that_both_cells_have(own_records):
    write_record("bigrec", 1, [0, 0, 0, 0])
    write_record("bigrec", 2, [1, 1, 1, 1])
    write_record("latentr3-sft", 2, [1, 1, 1, 0])
    text = page.write_page().read_text()
    assert "| latents, SFT: latentr3-sft − bigrec | HR@5 | -0.2500" in text
    row = next(line for line in text.splitlines() if line.startswith("| BIGRec (backbone"))
    assert "0.5000 [0.5000, 0.5000]" in row
    assert row.endswith("| 0.0000, 1.0000 |")
    assert "| SASRec | *not run* |" in text
    assert DATASETS["games-full"].not_run in text
    assert (own_records / "docs/results/office/curves.svg").is_file()


def test_wide_backbone_has_the_parameters_of_latent_ratt():
    small = PRESETS["small"]
    wide = widened(small)
    extra = 3 * small.hidden_size * small.layers * (wide.intermediate_size - small.intermediate_size)
    ratt = 3 * (small.hidden_size**2 + small.hidden_size)
    assert abs(extra - ratt) / ratt < 0.02


def test_command_runs_apart_with_its_output_in_the_log(tmp_path):
    with (tmp_path / "log").open("w") as log:
        assert command.call(["--help"], log) == 0
        assert command.call(["nonsense"], log) == 2
    text = (tmp_path / "log").read_text()
    assert "usage: latentrec COMMAND" in text
    assert "no command 'nonsense'" in text


def test_text_cells_share_one_backbone_that_can_spell(tmp_path):
    dataset = write_dataset(tmp_path / "dataset", n_users=20, n_items=24)
    place = write_backbone(dataset, "micro", 1, tmp_path / "backbone", epochs=150)
    figures = json.loads((place / "pretraining.json").read_text())
    assert figures["titles"] == 24
    assert figures["nats_per_title"] < 2 * figures["nats_of_a_uniform_guess"]
    before = (place / "model.safetensors").stat().st_mtime_ns
    write_backbone(dataset, "micro", 1, place, epochs=150)
    assert (place / "model.safetensors").stat().st_mtime_ns == before


def test_wide_cell_gets_a_backbone_though_none_reads_titles_first(tmp_path):
    dataset = write_dataset(tmp_path / "dataset", n_users=20, n_items=24)
    runner = run.Runner(tmp_path, tmp_path / "work")
    plan = DATASETS["office"]
    words = runner._command(plan, CELLS["bigrec-wide"], str(dataset), "O", 7)
    place = Path(words[words.index("--backbone") + 1])
    assert json.loads((place / "config.json").read_text())["intermediate_size"] > 192
    assert json.loads((place / "pretraining.json").read_text())["nats_per_title"] is None


def test_page_says_what_the_gain_is_due_to(own_records):
    for cell, ranks in (
        ("bigrec-catalogue", [0, 0, 1, 1]),
        ("titles-bigrec", [1, 1, 1, 1]),
        ("titles-latentr3", [1, 1, 1, 1]),
    ):
        for seed in (1, 2):
            write_record(cell, seed, ranks * 50)
    text = page.write_page().read_text()
    rows = [
        line for line in text.splitlines() if line.startswith("| LatentR³ (SFT, then arcsin) over BIGRec")
    ]
    assert rows[0].startswith(
        "| LatentR³ (SFT, then arcsin) over BIGRec | HR@5 | Office Products 2018 | 2 | +0.5000"
    )
    assert rows[0].endswith("| +17.0% |")
    assert "is due to the objective, which gains on N = 0 as well" in text
    assert "that latents add to it is not shown" in text


def test_goal_table_gives_the_median_of_the_datasets(own_records):
    for dataset, after in (("office", [1, 1, 1, 1]), ("cds", [1, 1, 1, 0])):
        for cell, hits in (("bigrec", [0, 0, 1, 1]), ("latentr3-sft", after)):
            write_record(cell, 1, hits, dataset=dataset)
    rows = [line for line in page.write_page().read_text().splitlines() if "**median of 2**" in line]
    assert {row.split(" | ")[0] for row in rows} == {"| stage 1 alone: LatentRATT over N = 0"}
    assert "| **+75.0% [" in rows[0]


def test_alpha_is_chosen_on_validation_and_test_is_scored_once(tmp_path, monkeypatch):
    dataset = write_dataset(tmp_path / "dataset", n_users=20, n_items=24)
    sizes = {split: len(Dataset(dataset).split(split)) for split in ("valid", "test")}
    monkeypatch.setattr(score_models, "ALPHA_SAMPLES", sizes["valid"] - 1)
    asked = []

    def scored(recommender, samples, catalogue):
        asked.append((recommender.alpha, len(samples)))
        quality = 1 - abs(recommender.alpha - 0.5)
        return SimpleNamespace(values=lambda metric: np.full(len(samples), quality))

    monkeypatch.setattr(score_models, "load_recommender", lambda *_, **__: SimpleNamespace(alpha=None))
    monkeypatch.setattr(score_models, "score_model", scored)
    found = score_models.score_models(CELLS["d3"], dataset, {"bigrec": tmp_path, "sasrec": tmp_path})
    assert found.alpha == 0.5
    assert found.validation["ndcg_at_10"] == 1.0
    assert asked == [(alpha, sizes["valid"] - 1) for alpha in score_models.ALPHAS] + [(0.5, sizes["test"])]
    assert found.test_users.tolist() == Dataset(dataset).split("test").user_ids.tolist()


def test_a_draw_of_the_test_split_is_the_same_for_every_cell(tmp_path, monkeypatch):
    dataset = write_dataset(tmp_path / "dataset", n_users=20, n_items=24)
    asked = []

    def scored(recommender, samples, catalogue):
        asked.append(samples.user_ids.tolist())
        return SimpleNamespace(values=lambda metric: np.zeros(len(samples)))

    monkeypatch.setattr(score_models, "load_recommender", lambda *_, **__: SimpleNamespace(alpha=None))
    monkeypatch.setattr(score_models, "score_model", scored)
    found = [
        score_models.score_models(CELLS[cell], dataset, {cell: tmp_path}, test_samples=7).test_users.tolist()
        for cell in ("bigrec", "sasrec")
    ]
    assert len(set(found[0])) == 7
    assert found[0] == found[1] == asked[1] == asked[3]


def test_page_tells_what_stage_2_chose_by_from_what_it_is_worth(own_records):
    for seed, after in ((1, [1, 1, 0, 0]), (2, [1, 0, 1, 0])):
        write_record("latentr3-sft", seed, [1, 0, 0, 0])
        path = validation.record_path("office", "latentr3", seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = {"user_id": [0, 0, 1, 1], "chosen_by": [True, True, False, False]}
        pq.write_table(pa.table(columns | {"before": [1, 0, 0, 0], "after": after}), path)
    lines = page.write_page().read_text().splitlines()
    chosen, others = (line for line in lines if line.startswith("| on latents |"))
    assert "the draw that it chose by (2) | 0.50000 | 0.75000 | +0.25000" in chosen
    assert chosen.endswith("| +0.50000, +0.00000 |")
    assert "all others (2) | 0.00000 | 0.25000 | +0.25000" in others
    assert others.endswith("| +0.00000, +0.50000 |")


@pytest.mark.parametrize(
    ("cell", "options"),
    [
        ("latentr3", {"ranking_samples": 9, "metric_for_best_model": "ndcg_at_10"}),
        ("titles-latentr3", {"validation_samples": 9, "ranking_samples": 0}),
    ],
)
def test_stage_2_is_measured_on_validation_with_the_draw_that_it_chose_by(
    own_records, tmp_path, cell, options
):
    work = tmp_path / "work"
    dataset = write_dataset(work / "office" / "dataset", n_users=30, n_items=24)
    sft(dataset, work / "office" / "seed1" / "latentr3-sft", num_train_epochs=1)
    stage2.measure_all(["office"], [1], work, deadline=float("inf"))
    assert not validation.record_path("office", cell, 1).exists()
    places = [work / "office" / "seed1" / name for name in ("latentr3-sft", cell)]
    train = titles if cell.startswith("titles") else grpo
    train(dataset, *places, max_steps=1, seed=5, **options)
    stage2.measure_all(["office"], [1], work, deadline=float("inf"))
    table = pq.read_table(validation.record_path("office", cell, 1))
    valid = Dataset(dataset).split("valid")
    assert table["user_id"].to_pylist() == valid.user_ids.tolist()
    chosen = np.flatnonzero(table["chosen_by"].to_numpy())
    assert chosen.tolist() == sample_at_most(len(valid), 9, 5).tolist()
    assert set(table["before"].to_pylist()) != {0}


def test_records_name_no_place_of_the_machine_that_made_them():
    config = {"backbone": "/somewhere/backbone-wide", "seed": 1, "latent": "latent_ratt"}
    assert run.without_places(config) == config | {"backbone": "backbone-wide"}
    docs = Path(__file__).resolve().parents[2] / "docs"
    found = {
        place: path.name
        for path in docs.rglob("*.json")
        for place in re.findall(r'"(/[a-z]+/[^"]*)"', path.read_text(encoding="utf-8"))
    }
    assert not found
