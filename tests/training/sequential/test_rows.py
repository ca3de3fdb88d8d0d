"""Rows: every training target once, no other target, and contexts that the samples have."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentrec.data import Samples
from latentrec.training.sequential.rows import (
    NO_TARGET,
    collate,
    epoch_batches,
    one_row_per_sample,
    pack_by_user,
)


def samples_of(sequences: list[list[int]], max_history: int, order=None, drop=()) -> Samples:
    rows = [
        (user, sequence[max(0, p - max_history) : p], sequence[p])
        for user, sequence in enumerate(sequences)
        for p in range(1, len(sequence))
        if (user, p) not in drop
    ]
    rows = [rows[i] for i in order] if order is not None else rows
    lengths = [len(history) for _, history, _ in rows]
    return Samples(
        user_ids=np.array([user for user, _, _ in rows], np.int32),
        history_offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        history_items=np.array([i for _, history, _ in rows for i in history], np.int32),
        targets=np.array([target for *_, target in rows], np.int32),
        ratings=np.ones(len(rows), np.float32),
        timestamps=np.arange(len(rows), dtype=np.int64),
    )


def pairs(rows) -> list[tuple[tuple[int, ...], int]]:
    """(inputs up to the position, target) of every position that counts."""
    found = []
    for row in range(len(rows)):
        start, stop = rows.offsets[row], rows.offsets[row + 1]
        for position in range(start, stop):
            if rows.targets[position] != NO_TARGET:
                found.append((tuple(rows.items[start : position + 1]), int(rows.targets[position])))
    return sorted(found)


SEQUENCES = st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=12), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(SEQUENCES)
def test_short_users_give_exactly_their_samples(sequences):
    samples = samples_of(sequences, max_history=20)
    expected = [(tuple(map(int, samples.history(i))), int(samples.targets[i])) for i in range(len(samples))]
    assert pairs(pack_by_user(samples, max_length=20)) == sorted(expected)
    assert pairs(one_row_per_sample(samples, max_length=20)) == sorted(expected)


@settings(max_examples=60, deadline=None)
@given(SEQUENCES, st.integers(1, 6))
def test_long_users_keep_every_target_once_with_at_least_half_a_window(sequences, window):
    samples = samples_of(sequences, max_history=window)
    found = pairs(pack_by_user(samples, max_length=window))
    assert sorted(target for _, target in found) == sorted(samples.targets.tolist())
    full = {}
    for user, sequence in enumerate(sequences):
        for position in range(1, len(sequence)):
            full.setdefault(sequence[position], []).append((user, position))
    for context, target in found:
        assert len(context) <= window
        fits = [
            (user, position)
            for user, position in full[target]
            if tuple(sequences[user][position - len(context) : position]) == context
            and len(context) >= min(position, (window + 1) // 2)
        ]
        assert fits, (context, target)


def test_a_missing_sample_is_no_target_though_its_item_is_read():
    samples = samples_of([[1, 2, 3, 4, 5]], max_history=10, drop={(0, 2)})
    rows = pack_by_user(samples, max_length=10)
    assert pairs(rows) == [((1,), 2), ((1, 2, 3), 4), ((1, 2, 3, 4), 5)]


def test_order_of_the_file_across_users_does_not_matter():
    sequences = [[1, 2, 3, 4], [5, 6, 7]]
    interleaved = [0, 3, 1, 4, 2]
    plain = pack_by_user(samples_of(sequences, 10), 10)
    mixed = pack_by_user(samples_of(sequences, 10, order=interleaved), 10)
    assert pairs(plain) == pairs(mixed)
    assert len(mixed) == 2


def test_batches_cover_each_row_once_and_follow_from_the_epoch():
    generator = np.random.default_rng(0)
    sequences = [generator.integers(0, 9, size=generator.integers(2, 15)).tolist() for _ in range(200)]
    rows = pack_by_user(samples_of(sequences, 20), 20)
    batches = epoch_batches(rows, 64, seed=1, epoch=3)
    assert sorted(np.concatenate(batches)) == list(range(len(rows)))
    again = epoch_batches(rows, 64, seed=1, epoch=3)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))
    other = epoch_batches(rows, 64, seed=1, epoch=4)
    assert not np.array_equal(np.concatenate(batches), np.concatenate(other))
    sizes = [rows.targets_per_row[batch].sum() for batch in batches]
    assert max(sizes) < 2 * 64


def test_batches_of_like_length_leave_little_padding():
    generator = np.random.default_rng(0)
    sequences = [[0] * int(n) for n in np.clip(generator.geometric(0.15, 2000) + 1, 2, 30)]
    rows = pack_by_user(samples_of(sequences, 30), 30)
    batches = epoch_batches(rows, 256, seed=0, epoch=0)
    cells = sum(len(batch) * rows.lengths[batch].max() for batch in batches)
    assert len(rows.items) / cells > 0.9


def test_collate_pads_on_the_right():
    rows = pack_by_user(samples_of([[1, 2, 3], [4, 5]], 10), 10)
    batch = collate(rows, np.array([0, 1]), padding=99)
    assert batch.items_BL.tolist() == [[1, 2], [4, 99]]
    assert batch.targets_BL.tolist() == [[2, 3], [5, NO_TARGET]]
    assert batch.lengths_B.tolist() == [2, 1]


@pytest.mark.parametrize("layout", [pack_by_user, one_row_per_sample])
def test_a_sample_without_history_gives_no_row(layout):
    samples = Samples(
        user_ids=np.zeros(1, np.int32),
        history_offsets=np.zeros(2, np.int64),
        history_items=np.zeros(0, np.int32),
        targets=np.ones(1, np.int32),
        ratings=np.ones(1, np.float32),
        timestamps=np.ones(1, np.int64),
    )
    assert len(layout(samples, 10)) == 0
