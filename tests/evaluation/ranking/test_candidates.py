"""What may stand in a list: own items are found among all of a user's events, not only in the history."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from latentrec.data import Samples
from latentrec.evaluation.ranking.candidates import owned_items


class Events:
    """Stands in for a dataset directory with events."""

    def __init__(self, directory, rows):
        self.directory = directory
        names = ("user_id", "item_id", "timestamp")
        columns = {
            name: pa.array(list(values)) for name, values in zip(names, zip(*rows, strict=True), strict=True)
        }
        self.interactions = pa.table(columns)
        pq.write_table(self.interactions, directory / "interactions.parquet")


def samples_of(rows):
    histories = [history for _, history, _, _ in rows]
    return Samples(
        user_ids=np.array([user for user, *_ in rows], np.int32),
        history_offsets=np.concatenate([[0], np.cumsum([len(h) for h in histories])]).astype(np.int64),
        history_items=np.concatenate([np.array(h, np.int32) for h in histories]),
        targets=np.array([target for _, _, target, _ in rows], np.int32),
        ratings=np.full(len(rows), 5.0, np.float32),
        timestamps=np.array([time for *_, time in rows], np.int64),
    )


def test_items_older_than_the_history_are_owned_too(tmp_path):
    data = Events(tmp_path, [(0, 9, 1), (1, 4, 1), (1, 5, 2), (1, 6, 3), (1, 7, 4), (1, 8, 5), (2, 3, 1)])
    found = owned_items(data, samples_of([(1, [6, 7], 8, 5), (1, [5, 6], 7, 4)]))
    assert [items.tolist() for items in found] == [[4, 5, 6, 7], [4, 5, 6]]


def test_the_same_purchase_twice_on_a_day_is_told_apart_by_its_history(tmp_path):
    data = Events(tmp_path, [(0, 1, 7), (0, 2, 7), (0, 3, 7), (0, 2, 7)])
    found = owned_items(data, samples_of([(0, [3], 2, 7), (0, [1], 2, 7)]))
    assert [items.tolist() for items in found] == [[1, 2, 3], [1]]


def test_what_is_not_among_the_events_falls_back_to_the_history(tmp_path):
    data = Events(tmp_path, [(0, 1, 7), (0, 2, 8)])
    assert owned_items(data, samples_of([(0, [5], 2, 8)]))[0].tolist() == [5]
