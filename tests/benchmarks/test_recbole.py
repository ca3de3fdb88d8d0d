"""Our SASRec against RecBole's: the files hold exactly our samples, and the verdict follows the ranks.

RecBole itself is not needed here; `python -m benchmarks.recbole` is run by hand.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.recbole import compare
from benchmarks.recbole.files import HEADER, export
from benchmarks.recbole.theirs import ranks_of
from latentrec.data import SPLITS, Dataset
from latentrec.training.sequential.sequential_config import SequentialConfig
from tests.errors import refused
from tests.fixtures.sequential_data import write_dataset


@pytest.fixture
def setup(tmp_path) -> compare.Setup:
    write_dataset(tmp_path / "dataset", n_users=40)
    return compare.Setup(
        data=tmp_path,
        python=Path(sys.executable),
        work=tmp_path,
        users=40,
        max_history=10,
        patience=2,
        max_epochs=3,
        recbole_batches=(64,),
    )


def lines_of(folder: Path, split: str) -> list[tuple[int, list[int], int]]:
    head, *lines = (folder / f"shop.{split}.inter").read_text().splitlines()
    assert head == HEADER
    cells = [line.split("\t") for line in lines]
    return [(int(user), [int(item) for item in history.split(" ")], int(at)) for user, history, at in cells]


def test_every_line_is_one_of_our_samples_in_our_order(setup, tmp_path):
    dataset = Dataset(setup.dataset)
    counts = export(dataset, tmp_path / "atomic", "shop")
    for split in SPLITS:
        samples = dataset.split(split)
        expected = [
            (int(samples.user_ids[i]), samples.history(i).tolist(), int(samples.targets[i]))
            for i in range(len(samples))
        ]
        assert lines_of(tmp_path / "atomic/shop", split) == expected
        assert counts[split] == len(expected) > 0


def test_whole_catalogue_is_listed_with_items_that_no_sample_holds(tmp_path):
    dataset = Dataset(write_dataset(tmp_path / "dataset", n_users=3, n_items=500))
    export(dataset, tmp_path / "atomic", "shop")
    head, *items = (tmp_path / "atomic/shop/shop.item").read_text().splitlines()
    assert head == "item_id:token"
    assert [int(item) for item in items] == list(range(500))


def without_first_history(directory: Path, split: str) -> Dataset:
    table = pq.read_table(directory / f"{split}.parquet")
    histories = [[], *table["history"].to_pylist()[1:]]
    column = pa.array(histories, pa.list_(pa.int32()))
    pq.write_table(table.set_column(1, "history", column), directory / f"{split}.parquet")
    return Dataset(directory, verify=False)


def test_training_sample_without_history_is_left_out(setup, tmp_path):
    n_train = len(Dataset(setup.dataset).split("train"))
    counts = export(without_first_history(setup.dataset, "train"), tmp_path / "atomic", "shop")
    assert counts["train"] == n_train - 1 == len(lines_of(tmp_path / "atomic/shop", "train"))


def test_test_sample_without_history_is_refused(setup, tmp_path):
    with refused("dataset.check_failed", "test.parquet", "1 samples"):
        export(without_first_history(setup.dataset, "test"), tmp_path / "atomic", "shop")


def test_rank_counts_the_items_above_the_target():
    scores = np.array([[0.1, 0.9, 0.5], [0.3, 0.2, -np.inf]])
    assert ranks_of(scores, np.array([2, 0])).tolist() == [2, 1]
    assert ranks_of(scores, np.array([0, 2])).tolist() == [3, 3]


def test_both_sides_get_the_same_shape_and_stopping_rule(setup):
    theirs = compare.recbole_config(setup, 64, seed=1)
    ours = SequentialConfig(**compare.SHAPE)
    names = {
        "hidden_size": "hidden_size",
        "inner_size": "inner_dim",
        "n_layers": "layers",
        "n_heads": "heads",
    }
    assert {name: theirs[name] for name in names} == {k: getattr(ours, v) for k, v in names.items()}
    assert (theirs["stopping_step"], theirs["epochs"], theirs["MAX_ITEM_LIST_LENGTH"]) == (2, 3, 10)
    assert theirs["loss_type"] == "CE"
    assert theirs["repeatable"]


@pytest.mark.parametrize(("ours", "theirs", "verdict"), [(3, 3, "yes"), (2, 50, "yes"), (50, 2, "NO")])
def test_verdict_is_no_only_where_ours_is_below_beyond_the_interval(setup, ours, theirs, verdict):
    ranks = {"ours": np.full(40, ours), "RecBole": np.full(40, theirs)}
    told = {"versions": {"recbole": "1", "torch": "2", "numpy": "1"}}
    found = compare.compare(setup, {1: {name: compare.Side(r, told) for name, r in ranks.items()}})
    assert [row["not below beyond the interval"] for row in found["table"]] == [verdict, verdict]
    assert found["ours NDCG@10"] == pytest.approx(1 / np.log2(1 + ours) if ours <= 10 else 0)


def test_failure_of_recbole_is_told_with_the_end_of_its_output(setup):
    assert Path(sys.executable) == setup.python  # an interpreter without RecBole
    with refused("input.unspecified", "'recbole'", "output.txt"):
        compare.train_both(setup, seed=1)


def test_our_side_ranks_every_test_sample_of_the_whole_catalogue(setup):
    dataset = Dataset(setup.dataset)
    side = compare._ours(replace(setup, max_epochs=1), dataset, seed=1)
    assert len(side.ranks) == len(dataset.split("test"))
    assert side.ranks.min() >= 1
    assert side.ranks.max() <= dataset.n_items
