"""Users of a dataset directory: each with what they bought, read with flat memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latentrec.steps.users_to_score import read_users
from latentrec.storage import ArtifactWriter
from tests.errors import refused


def write_users(folder: Path, users: np.ndarray, items: np.ndarray, n_users: int) -> Path:
    n_items = 50
    with ArtifactWriter(folder, "dataset", {}) as artifact:
        write_tables(artifact.path, users, items, n_users, n_items)
    return folder


def write_tables(folder: Path, users: np.ndarray, items: np.ndarray, n_users: int, n_items: int) -> None:
    pq.write_table(
        pa.table({"user_id": users.astype(np.int32), "item_id": items}), folder / "interactions.parquet"
    )
    keys = [f"u{user}" for user in range(n_users)]
    pq.write_table(
        pa.table({"user_id": np.arange(n_users, dtype=np.int32), "user_key": keys}), folder / "users.parquet"
    )
    pq.write_table(
        pa.table(
            {
                "item_id": np.arange(n_items, dtype=np.int32),
                "item_key": [f"B{item}" for item in range(n_items)],
                "title": [f"title {item}" for item in range(n_items)],
                "train_count": np.ones(n_items, np.int32),
            }
        ),
        folder / "items.parquet",
    )


def test_histories_are_those_of_a_group_by(tmp_path):
    rng = np.random.default_rng(3)
    users = np.sort(rng.choice([u for u in range(700) if u % 5], 90_000))
    items = rng.integers(0, 50, len(users)).astype(np.int32)
    expected = {f"u{user}": [f"B{item}" for item in items[users == user]][-1000:] for user in range(700)}
    assert list(read_users(str(write_users(tmp_path / "data", users, items, 700)), tmp_path)) == list(
        expected.items()
    )


@pytest.mark.parametrize(
    "users", [[0, 1, 0], [0, 1, 2], [-1, 0, 1]], ids=["not by user", "of no user", "before all users"]
)
def test_events_in_another_order_are_refused(tmp_path, users):
    folder = write_users(tmp_path / "data", np.array(users), np.array([1, 2, 3], np.int32), 2)
    with refused("users.unreadable", "interactions.parquet", "make the dataset again"):
        list(read_users(str(folder), tmp_path))


def test_memory_is_flat_in_the_number_of_users(tmp_path):
    peaks = []
    for n_users in (40_000, 160_000):
        users = np.repeat(np.arange(n_users), 2)
        folder = write_users(tmp_path / str(n_users), users, (users % 50).astype(np.int32), n_users)
        tracemalloc.start()
        held = pa.total_allocated_bytes()
        arrow = count = 0
        for count, _ in enumerate(read_users(str(folder), tmp_path), 1):
            if count % 10_000 == 0:
                arrow = max(arrow, pa.total_allocated_bytes() - held)
        peaks.append(tracemalloc.get_traced_memory()[1] + arrow)
        tracemalloc.stop()
        assert count == n_users
    assert peaks[1] < 1.3 * peaks[0] + 2e6, [f"{peak / 1e6:.1f} MB" for peak in peaks]
