"""``--max-users``: the same subset of users whatever the file's order, smaller within larger."""

import numpy as np
import pyarrow as pa

from latentrec.data.data_prep_config import DataPrepConfig
from latentrec.data.filters import users_subset_mask
from tests.errors import refused

KEYS = pa.array([f"U{i}" for i in range(50)])
USERS = np.random.default_rng(0).integers(0, 50, size=400).astype(np.int32)


def chosen(mask, users=USERS, keys=KEYS):
    return {keys[int(code)].as_py() for code in users[mask]}


def test_the_subset_keeps_all_events_of_its_users_and_no_others():
    mask = users_subset_mask(USERS, KEYS, 12, seed=1)
    assert len(chosen(mask)) == 12
    assert not chosen(mask) & chosen(~mask)


def test_the_subset_follows_from_keys_and_seed_alone():
    order = np.random.default_rng(1).permutation(50)
    place = np.argsort(order).astype(np.int32)
    shuffled = chosen(
        users_subset_mask(place[USERS], KEYS.take(pa.array(order)), 12, seed=1),
        place[USERS],
        KEYS.take(pa.array(order)),
    )
    first = chosen(users_subset_mask(USERS, KEYS, 12, seed=1))
    assert shuffled == first
    assert first < chosen(users_subset_mask(USERS, KEYS, 20, seed=1))
    assert first != chosen(users_subset_mask(USERS, KEYS, 12, seed=2))


def test_more_users_than_there_are_keeps_all():
    assert users_subset_mask(USERS, KEYS, 1000, seed=1).all()


def test_no_users_is_refused():
    with refused("config.invalid", "max_users", "0"):
        DataPrepConfig(reviews=("r.json",), max_users=0)
