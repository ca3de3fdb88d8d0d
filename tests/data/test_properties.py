"""Properties that hold for any events: no leak, complete splits, fixed-point cores, order does not matter."""

import itertools
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latentrec.core import UserError
from latentrec.data import DataPrepConfig, Dataset, prepare
from latentrec.data.filters import first_of_repeats, k_core_mask
from latentrec.data.splits import history_rows, split_samples
from tests.fixtures.review_files import lines, review, write

FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MANY = settings(max_examples=200, deadline=None)
event = st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 8), st.integers(1, 5))
event_lists = st.lists(event, min_size=1, max_size=60)


def as_reviews(events):
    return [review(f"U{user}", f"B{item:09d}", float(stars), day) for user, item, day, stars in events]


def prepared(events, folder, name="out", **config):
    path = write(folder / f"{name}.json", lines(as_reviews(events)))
    settings_ = {"k_core": 1, **config}
    return prepare(DataPrepConfig(reviews=(path,), **settings_), folder / name)


def by_loops(events, k_core, max_history):
    """The temporal recipe in plain loops: {split: [(user, history, target, stars, day)]}."""
    while True:
        users, items = Counter(e[0] for e in events), Counter(e[1] for e in events)
        left = [e for e in events if users[e[0]] >= k_core and items[e[1]] >= k_core]
        if len(left) == len(events):
            break
        events = left
    samples = []
    for user in sorted({e[0] for e in events}):
        own = sorted((e for e in events if e[0] == user), key=lambda e: e[2])
        for place in range(1, len(own)):
            past = tuple(e[1] for e in own[max(0, place - max_history) : place])
            samples.append((user, past, *own[place][1:2], own[place][3], own[place][2]))
    samples.sort(key=lambda sample: sample[4])
    first, second = int(len(samples) * 0.8), int(len(samples) * 0.9)
    return {"train": samples[:first], "valid": samples[first:second], "test": samples[second:]}


@FEW
@given(events=event_lists, k_core=st.integers(1, 3), max_history=st.integers(1, 4))
def test_dataset_equals_the_recipe_in_plain_loops(events, k_core, max_history):
    expected = by_loops(events, k_core, max_history)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not all(expected.values()):
            with pytest.raises(UserError):
                prepared(events, folder, k_core=k_core, max_history=max_history)
            return
        prepared(events, folder, k_core=k_core, max_history=max_history)
        dataset = Dataset(folder / "out")
        users = [int(key[1:]) for key in dataset.users["user_key"].to_pylist()]
        items = [int(key[1:]) for key in dataset.item_keys]
        for split, samples in expected.items():
            found = dataset.split(split)
            days = found.timestamps - found.timestamps.min()
            first_day = min(sample[4] for sample in samples)
            assert samples == [
                (
                    users[found.user_ids[index]],
                    tuple(items[item] for item in found.history(index)),
                    items[found.targets[index]],
                    int(found.ratings[index]),
                    int(days[index]) // 86_400 + first_day,
                )
                for index in range(len(found))
            ]


def sorted_columns(events):
    ordered = sorted(events, key=lambda e: (e[0], e[2]))
    user, item, day, _ = (np.array(column) for column in zip(*ordered, strict=True))
    return user.astype(np.int32), item.astype(np.int32), day.astype(np.int64)


@MANY
@given(
    events=event_lists,
    method=st.sampled_from(["temporal", "dates", "leave_one_out"]),
    bounds=st.tuples(st.integers(0, 8), st.integers(0, 8)).map(sorted),
)
def test_splits_are_disjoint_complete_and_in_order(events, method, bounds):
    user, _, time = sorted_columns(events)
    has_past = np.r_[False, user[1:] == user[:-1]]
    if not has_past.any():
        with pytest.raises(UserError):
            split_samples(user, time, method, valid_start=bounds[0], test_start=bounds[1])
        return
    split = split_samples(user, time, method, valid_start=bounds[0], test_start=bounds[1])
    parts = [split.train, split.valid, split.test]
    assert sorted(np.concatenate(parts).tolist()) == np.flatnonzero(has_past).tolist()
    if method == "leave_one_out":
        last = np.r_[user[1:] != user[:-1], True]
        assert last[split.test].all()
        assert last[split.valid + 1].all()
    else:
        for earlier, later in itertools.pairwise(part for part in parts if len(part)):
            assert time[earlier].max() <= time[later].min()
    if method == "dates":
        assert (time[split.train] < bounds[0]).all()
        assert ((time[split.valid] >= bounds[0]) & (time[split.valid] < bounds[1])).all()
        assert (time[split.test] >= bounds[1]).all()
    assert not split.in_training[split.valid].any()
    assert not split.in_training[split.test].any()
    if method != "leave_one_out" and len(split.train):
        assert time[split.in_training].max() == split.train_end == time[split.train].max()


@MANY
@given(events=event_lists, max_history=st.integers(1, 5))
def test_no_history_holds_a_later_or_a_strange_event(events, max_history):
    user, _, time = sorted_columns(events)
    starts = np.r_[True, user[1:] != user[:-1]]
    position = np.arange(len(user)) - np.maximum.accumulate(np.where(starts, np.arange(len(user)), 0))
    targets = np.flatnonzero(position > 0)
    offsets, rows = history_rows(targets, position.astype(np.int32), max_history)
    for number, target in enumerate(targets):
        history = rows[offsets[number] : offsets[number + 1]]
        assert len(history) == min(position[target], max_history)
        assert (user[history] == user[target]).all()
        assert (time[history] <= time[target]).all()
        assert history.tolist() == list(range(target - len(history), target))


@MANY
@given(events=event_lists, k=st.integers(1, 5))
def test_k_core_is_the_largest_set_that_meets_k(events, k):
    user, item = (np.array(column) for column in list(zip(*events, strict=True))[:2])
    mask = k_core_mask(user, item, k)
    for codes in (user[mask], item[mask]):
        assert all(count >= k for count in Counter(codes.tolist()).values())
    alive = set(range(len(events)))  # removing one offender at a time, in any order, ends at the same set
    while True:
        users, items = Counter(user[i] for i in alive), Counter(item[i] for i in alive)
        offender = next((i for i in alive if users[user[i]] < k or items[item[i]] < k), None)
        if offender is None:
            break
        alive.remove(offender)
    assert set(np.flatnonzero(mask).tolist()) == alive
    assert k_core_mask(user[mask], item[mask], k).all()


@MANY
@given(events=event_lists)
def test_first_of_repeats_is_the_first_in_file_order(events):
    user, item, time = (np.array(column) for column in list(zip(*events, strict=True))[:3])
    seen: set = set()
    expected = []
    for key in zip(user.tolist(), item.tolist(), time.tolist(), strict=True):
        expected.append(key not in seen)
        seen.add(key)
    assert first_of_repeats(user, item, time).tolist() == expected


@FEW
@given(events=st.lists(event, min_size=12, max_size=40, unique_by=lambda e: (e[0], e[2])), data=st.data())
def test_order_of_lines_and_files_changes_nothing_without_ties(events, data):
    shuffled = data.draw(st.permutations(events))
    cut = data.draw(st.integers(1, len(events) - 1))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            expected = prepared(events, folder).fingerprint
        except UserError:
            return  # too few events for three splits
        one, two = (
            write(folder / f"{part}.json", lines(as_reviews(rows)))
            for part, rows in (("b", shuffled[:cut]), ("a", shuffled[cut:]))
        )
        again = prepare(DataPrepConfig(reviews=(one, two), k_core=1), folder / "again")
        assert again.fingerprint == expected


@FEW
@given(events=st.lists(event, min_size=25, max_size=60), data=st.data())
def test_order_of_lines_decides_ties_and_nothing_else(events, data):
    shuffled = data.draw(st.permutations(events))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            first = prepared(events, folder, "first")
        except UserError:
            return
        second = prepared(shuffled, folder, "second")
        assert first.counts == second.counts
        one, two = Dataset(folder / "first"), Dataset(folder / "second")
        assert one.item_keys == two.item_keys
        rows = [zip(*d.interactions.to_pydict().values(), strict=True) for d in (one, two)]
        assert Counter(rows[0]) == Counter(rows[1])
        for split in ("train", "valid", "test"):  # who is asked when never depends on the order of lines
            a, b = one.split(split), two.split(split)
            assert a.user_ids.tolist() == b.user_ids.tolist()
            assert a.timestamps.tolist() == b.timestamps.tolist()


@FEW
@given(
    events=st.lists(event, min_size=40, max_size=60),
    change=st.sampled_from(["nothing", "path", "packing", "rating", "item", "config", "seed"]),
)
def test_fingerprints_are_equal_iff_content_and_configuration_are(events, change):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            first = prepared(events, folder, "first")
        except UserError:
            return
        second_events = list(events)
        config = {"k_core": 1}
        suffix = ".json"
        if change == "rating":
            user, item, day, stars = second_events[0]
            second_events[0] = (user, item, day, stars % 5 + 1)
        elif change == "item":
            user, item, day, stars = second_events[0]
            second_events[0] = (user, item + 10, day, stars)
        elif change == "config":
            config["max_history"] = 7
        elif change == "seed":
            config["seed"] = 1
        elif change == "packing":
            suffix = ".json.gz"
        place = folder / "elsewhere" if change == "path" else folder
        place.mkdir(exist_ok=True)
        path = write(place / f"second{suffix}", lines(as_reviews(second_events)))
        second = prepare(DataPrepConfig(reviews=(path,), **config), place / "second")
        is_same = change in ("nothing", "path", "packing")
        assert (first.fingerprint == second.fingerprint) == is_same
