"""Events as columns: ids as codes into dictionaries that grow while files stream by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class Events:
    """Every event that was read, in file order.

    Attributes:
        user, item: int32 (n,), codes into the keys.
        rating: float32 (n,).
        time: int64 (n,), UTC seconds.
        user_keys, item_keys: Arrow strings; the place is the code.
    """

    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    time: np.ndarray
    user_keys: pa.Array
    item_keys: pa.Array

    def __len__(self) -> int:
        """Number of events."""
        return len(self.user)


class KeyCodes:
    """Turns a stream of strings into codes in order of first appearance.

    Strings wait until as many are pending as half the dictionary (at least a million); then dictionary and
    pending chunks are encoded in one pass of a hash table. The dictionary stands first, so its codes never
    change, and the work stays proportional to the number of strings.
    """

    def __init__(self, least_pending: int = 1 << 20):
        self.keys: pa.Array = pa.array([], pa.string())
        self._least = least_pending
        self._pending: list[pa.Array] = []
        self._n_pending = 0
        self._codes: list[np.ndarray] = []

    def add(self, values: pa.ChunkedArray) -> None:
        """Append strings."""
        self._pending.extend(values.chunks)
        self._n_pending += len(values)
        if self._n_pending >= max(self._least, len(self.keys) // 2):
            self._encode()

    def finish(self) -> tuple[np.ndarray, pa.Array]:
        """All codes (int32) in order, and the keys."""
        self._encode()
        codes = np.concatenate(self._codes) if self._codes else np.zeros(0, np.int32)
        self._codes = []
        return codes, self.keys

    def _encode(self) -> None:
        if not self._n_pending:
            return
        encoded = pa.chunked_array([self.keys, *self._pending], pa.string()).dictionary_encode()
        chunks = encoded.chunks
        known = len(self.keys)
        self.keys = chunks[-1].dictionary
        codes = np.concatenate([chunk.indices.to_numpy() for chunk in chunks])
        self._codes.append(codes[known:])
        self._pending, self._n_pending = [], 0


class EventBuilder:
    """Collects parsed blocks into :class:`Events`."""

    def __init__(self) -> None:
        self._users, self._items = KeyCodes(), KeyCodes()
        self._rating: list[np.ndarray] = []
        self._time: list[np.ndarray] = []
        self.rows = 0

    def add(self, user: pa.ChunkedArray, item: pa.ChunkedArray, rating: np.ndarray, time: np.ndarray) -> None:
        """Append rows; ``time`` in UTC seconds."""
        self._users.add(user)
        self._items.add(item)
        self._rating.append(rating.astype(np.float32))
        self._time.append(time.astype(np.int64))
        self.rows += len(rating)

    def finish(self) -> Events:
        """The events; the builder is empty afterwards."""
        rating = np.concatenate(self._rating) if self._rating else np.zeros(0, np.float32)
        time = np.concatenate(self._time) if self._time else np.zeros(0, np.int64)
        self._rating, self._time = [], []
        user, user_keys = self._users.finish()
        item, item_keys = self._items.finish()
        return Events(user, item, rating, time, user_keys, item_keys)
