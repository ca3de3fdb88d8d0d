"""Users by their taste for popular items, and what each model's lists do to them, by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from latentrec.data import Samples
from latentrec.evaluation.ranking.tables import lift_by_taste, popularity_thirds

COUNTS = np.array([6, 3, 1, 1, 1, 0])
SHOP = SimpleNamespace(train_counts=COUNTS, popularity_order=np.arange(6), n_items=6)


def samples_of(*histories):
    return Samples(
        user_ids=np.arange(len(histories), dtype=np.int32),
        history_offsets=np.concatenate([[0], np.cumsum([len(h) for h in histories])]).astype(np.int64),
        history_items=np.concatenate(histories).astype(np.int32),
        targets=np.zeros(len(histories), np.int32),
        ratings=np.full(len(histories), 5.0, np.float32),
        timestamps=np.arange(len(histories)),
    )


def test_each_third_has_a_third_of_the_purchases_and_what_never_sold_is_apart():
    assert popularity_thirds(SHOP).tolist() == [0, 1, 2, 2, 2, 3]


def test_lift_is_given_by_the_users_share_of_popular_items():
    samples = samples_of([0, 0, 0], [0, 2], [2, 3, 1], [4])
    everyone_the_same = SimpleNamespace(name="popularity", ranked=np.array([[0, 1]] * 4))  # 4.5 purchases
    rows = {row["group"]: row for row in lift_by_taste([everyone_the_same], samples, SHOP)}
    assert {group: row["n"] for group, row in rows.items()} == {
        "mostly popular items": 1,
        "mixed": 1,
        "mostly niche items": 2,
    }
    assert rows["mostly popular items"]["lift"] == pytest.approx(4.5 / 6 - 1)
    assert rows["mixed"]["lift"] == pytest.approx(4.5 / 3.5 - 1)
    assert rows["mostly niche items"]["lift"] == pytest.approx(((4.5 / (5 / 3) - 1) + (4.5 / 1 - 1)) / 2)


def test_a_group_without_users_has_no_row():
    model = SimpleNamespace(name="m", ranked=np.array([[0, 1]]))
    assert [row["group"] for row in lift_by_taste([model], samples_of([4]), SHOP)] == ["mostly niche items"]
