"""The study of controls: queues, chosen learning rates, statistics over seeds and users, pages from
records."""

import json

import numpy as np
import pytest

from benchmarks.controls import (
    attribution,
    confirmation,
    lares_tables,
    page,
    pool,
    records,
    statistics,
    worker,
)
from benchmarks.controls.datasets import write_untouched
from benchmarks.controls.trials import OBJECTIVES, RATES, TRIALS, TUNED_ON, tuning_name


@pytest.fixture
def own_records(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RECORDS", tmp_path / "controls")
    return tmp_path


def write_record(dataset, trial, seed, ranks, **more):
    ranks = np.asarray(ranks, np.uint8)
    path = records.record_path(dataset, trial, seed)
    columns = {"user_id": np.arange(len(ranks), dtype=np.int32) // 2, "title_rank": ranks}
    columns |= {name: np.asarray(values, np.uint8) for name, values in more.pop("columns", {}).items()}
    records.write_ranks(path.with_suffix(".parquet"), columns)
    ndcg = float(np.where(ranks > 0, 1 / np.log2(ranks.astype(float) + 1 + (ranks == 0)), 0).mean())
    record = {
        "figures": {"ndcg_at_10": ndcg, "hr_at_5": float(((ranks > 0) & (ranks <= 5)).mean())},
        "training_metrics": {},
        "config": {},
        "notes": [],
        "samples": len(ranks),
        "split": TRIALS[trial].split,
        "device": "cpu",
        "machine": "a machine",
        "versions": {"torch": "2"},
        "processor_seconds": [1.0, 1.0],
    }
    for name, value in more.items():
        record[name] = record[name] | value if isinstance(record.get(name), dict) else value
    path.write_text(json.dumps(record))


def test_what_a_trial_needs_stands_before_it_in_the_queue(monkeypatch, tmp_path):
    monkeypatch.setattr(pool, "record_path", lambda *key: tmp_path / "-".join(map(str, key)))
    keys = pool.with_needed([("games-confirm", "ratt-arcsin", 3)], lambda key: False)
    assert keys[-1] == ("games-confirm", "ratt-arcsin", 3)
    place = {key: index for index, key in enumerate(keys)}
    for key in keys:
        for needed in [*pool._parents(key), *pool._tuning(key)]:
            assert place[needed] < place[key]
    tuned = {(dataset, tuning_name("arcsin", rate), seed) for dataset, seed in TUNED_ON for rate in RATES}
    assert tuned <= set(keys)
    assert len(keys) == len(set(keys))


def test_what_is_done_brings_nothing_back_into_the_queue(monkeypatch, tmp_path):
    """Its parent's model may be gone with the machine that trained it; the record is what counts."""
    (tmp_path / "tuned").touch()
    monkeypatch.setattr(pool, "record_path", lambda *key: tmp_path / "tuned")
    keys = [("games-confirm", "n0-arcsin", 3), ("cds", "ratt-arcsin", 1)]
    assert pool.with_needed(keys, lambda key: key[0] == "cds") == [("games-confirm", "n0", 3), keys[0]]


def test_queue_file_names_seeds_and_comments(tmp_path):
    path = tmp_path / "queue"
    path.write_text("# first\ncds n0 1,2\n\noffice ratt 3  # last\n")
    assert pool.read_queue(path) == [("cds", "n0", 1), ("cds", "n0", 2), ("office", "ratt", 3)]


def test_learning_rate_is_the_best_mean_on_validation(own_records):
    for dataset, seed in TUNED_ON:
        for rate, rank in zip(RATES, (4, 1, 2), strict=True):
            write_record(dataset, tuning_name("gce50", rate), seed, [rank] * 4)
    assert worker.best_rate("gce50") == RATES[1]
    words = worker.words_of(TRIALS["n0-gce50"], "D", "O", "M", 7)
    assert words[words.index("--learning-rate") + 1] == RATES[1]
    assert words[words.index("--model") + 1] == "M"
    with pytest.raises(AssertionError, match="was not tried"):
        worker.best_rate("gce25")


def test_every_command_of_a_trial_is_one_that_its_configuration_takes():
    from argparse import ArgumentParser

    from latentrec.core import add_config_arguments, config_from_namespace

    for trial in TRIALS.values():
        config_class, _ = (worker._named(name) for name in worker.COMMANDS[trial.command[0]])
        parser = ArgumentParser(exit_on_error=False)
        for flag in ("--init-from",):
            parser.add_argument(flag)
        add_config_arguments(parser, config_class)
        config_from_namespace(config_class, parser.parse_args(list(trial.command[1:])))


def test_interval_is_over_seeds_and_users():
    rng = np.random.default_rng(0)
    users = np.arange(400)
    noise = rng.normal(size=(3, 400))
    one = statistics.difference(noise + 0.5, noise, users)
    assert (one.value, one.low, one.high) == pytest.approx((0.5, 0.5, 0.5))
    assert one.confirmed
    by_seed = np.array([[0.0], [0.3], [0.9]])
    uncertain = statistics.difference(noise + by_seed, noise, users)
    assert uncertain.by_seed == pytest.approx((0.0, 0.3, 0.9))
    assert uncertain.low == pytest.approx(0.0, abs=0.02)
    assert uncertain.high == pytest.approx(0.9, abs=0.02)
    few = statistics.difference(np.tile(rng.normal(size=(1, 40)), (3, 1)), np.zeros((3, 40)), np.arange(40))
    again = statistics.difference(
        np.tile(np.repeat(rng.normal(size=(1, 40)), 10, axis=1), (3, 1)),
        np.zeros((3, 400)),
        np.repeat(np.arange(40), 10),
    )
    assert 0.5 < (few.high - few.low) / (again.high - again.low) < 2  # ten samples of a user are no ten users


def test_median_over_datasets_is_of_relative_gains():
    users, base = np.arange(50), np.ones((2, 50))
    gains = [statistics.difference(base * (1 + gain), base, users) for gain in (0.1, 0.2, 0.6)]
    assert statistics.median_gain(gains) == pytest.approx((0.2, 0.2, 0.2), rel=1e-5)


def test_confirmation_users_are_disjoint_from_those_that_were_used(tmp_path, monkeypatch):
    import gzip

    from benchmarks.controls import datasets
    from latentrec.data import filters

    monkeypatch.setattr(datasets, "TOUCHED_USERS", 20)
    monkeypatch.setattr(datasets, "CONFIRMATION_USERS", 15)
    lines = [json.dumps({"reviewerID": f"U{i % 60}", "asin": f"G{i}"}) + "\n" for i in range(300)]
    with gzip.open(tmp_path / "all.json.gz", "wt") as stream:
        stream.writelines(lines)
    write_untouched(tmp_path / "all.json.gz", tmp_path / "new.json.gz")
    with gzip.open(tmp_path / "new.json.gz", "rt") as stream:
        chosen = {json.loads(line)["reviewerID"] for line in stream}
    import pyarrow as pa

    keys = pa.array([f"U{i}" for i in range(60)])
    used = filters.users_subset_mask(np.arange(60), keys, 20, 42)
    assert len(chosen) == 15
    assert not chosen & {f"U{i}" for i in np.flatnonzero(used)}


def test_page_says_that_nothing_was_run_where_nothing_was(own_records):
    assert "not run" in attribution.attribution_table()


def test_page_attributes_a_gain_to_what_the_controls_show(own_records):
    rng = np.random.default_rng(0)
    low = rng.integers(0, 30, 400)
    high = np.where(rng.random(400) < 0.3, 1, low)
    for dataset in ("cds", "office"):
        for seed in (1, 2, 3):
            for trial in ("n0", "ratt", "pause"):
                write_record(dataset, trial, seed, low)
            for trial in ("n0-arcsin", "n0-compute", "pause-arcsin"):
                write_record(dataset, trial, seed, high)
            write_record(dataset, "ratt-arcsin", seed, high, columns={"title_rank_shuffled": high})
    text = attribution.attribution_table()
    assert "median" in text
    assert "due to the objective" in text
    assert "not due to latent reasoning" in text


@pytest.mark.parametrize(("gap", "verdict"), [(True, "may be called"), (False, "may not be called")])
def test_confirmation_is_decided_by_the_rule_of_the_protocol(own_records, gap, verdict):
    rng = np.random.default_rng(0)
    low = rng.integers(0, 30, 400)
    middle = np.where(rng.random(400) < 0.3, 1, low)
    high = np.where(rng.random(400) < 0.3, 1, middle)
    assert "not run" in confirmation.confirmation_table()
    for seed in (1, 2):
        for trial in ("n0", "ratt", "pause"):
            write_record("games-confirm", trial, seed, low)
        for trial in ("n0-arcsin", "n0-compute"):
            write_record("games-confirm", trial, seed, middle)
        write_record("games-confirm", "pause-arcsin", seed, middle)
        own = {"title_rank_shuffled": middle if gap else high}
        write_record("games-confirm", "ratt-arcsin", seed, high, columns=own)
    text = confirmation.confirmation_table()
    assert "2 of 5 seeds so far" in text
    assert "over N = 0 with the same objective (3): confirmed;" in text
    assert "stage 1 alone, over N = 0 (7a): not confirmed" in text
    assert f"What is gained {verdict} reasoning" in text


def test_page_shows_every_objective_with_the_rate_that_validation_chose(own_records):
    for dataset, seed in TUNED_ON:
        for objective in OBJECTIVES:
            for rate, rank in zip(RATES, (4, 1, 2), strict=True):
                write_record(dataset, tuning_name(objective, rate), seed, [rank] * 4)
            write_record(dataset, f"n0-{objective}", seed, [1, 0, 0, 2])
        write_record(dataset, "n0", seed, [2, 0, 0, 2])
    text = page.objective_table()
    assert text.count(RATES[1]) >= len(OBJECTIVES)


def test_page_shows_what_the_reward_of_rpt_had_to_say(own_records):
    logger = worker.Means()
    for step, spread in enumerate((0.1, 0.3)):
        logger.log_metrics({"train/reward_std_within_group": spread, "train/loss": 1.0}, step)
        logger.log_metrics({"train/groups_with_signal": 0.25, "train/entropy": 3.5}, step)
    assert logger.means() == {
        "reward_std_within_group": pytest.approx(0.2),
        "groups_with_signal": 0.25,
        "entropy": 3.5,
    }
    for trial in ("sasrec", "spt", "rpt"):
        means = logger.means() if trial == "rpt" else {}
        write_record("office", trial, 1, [1, 2, 0, 0], training_means=means)
    table = lares_tables.lares_table()
    assert "| Office, LARES, SPT + RPT as published | – | 0.2000 | 25.0% | 3.50 |" in table
    assert "with our defaults |" not in table.split("RPT in training")[1]


def test_each_seed_counts_its_own_samples():
    """A seed's mean is over the samples that it counts; with all counted it is the plain difference."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(20), 5)
    first, second = rng.random((2, 3, 100))
    counted = rng.random((3, 100)) < 0.4
    one = statistics.Resampler(users).difference(first, second, counted)
    expected = [(a[c].mean() - b[c].mean()) for a, b, c in zip(first, second, counted, strict=True)]
    assert one.by_seed == pytest.approx(expected)
    assert one.value == pytest.approx(np.mean(expected))
    assert one.low < one.value < one.high
    everything = statistics.Resampler(users).difference(first, second, np.ones_like(counted))
    plain = statistics.Resampler(users).difference(first, second)
    assert (everything.low, everything.high) == pytest.approx((plain.low, plain.high))
    assert everything.by_seed == pytest.approx(plain.by_seed)
