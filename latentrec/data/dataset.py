"""The dataset directory, read: items, users and the samples of each split as flat arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from latentrec.core import UserError
from latentrec.data.splits import SPLIT_NAMES
from latentrec.storage import Manifest, read_manifest

SPLITS = SPLIT_NAMES


@dataclass(frozen=True)
class Samples:
    """Next-item samples of one split; histories are stored back to back (CSR).

    Attributes:
        user_ids: int32 (S,).
        history_offsets: int64 (S + 1,); sample s has ``history_items[offsets[s]:offsets[s + 1]]``.
        history_items: int32, oldest first.
        targets: int32 (S,).
        ratings: float32 (S,), of the target.
        timestamps: int64 (S,), of the target, UTC seconds.
    """

    user_ids: np.ndarray
    history_offsets: np.ndarray
    history_items: np.ndarray
    targets: np.ndarray
    ratings: np.ndarray
    timestamps: np.ndarray

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.targets)

    def history(self, index: int) -> np.ndarray:
        """Item ids before the target of one sample, oldest first."""
        return self.history_items[self.history_offsets[index] : self.history_offsets[index + 1]]

    def histories(self) -> list[np.ndarray]:
        """All histories, as views."""
        return np.split(self.history_items, self.history_offsets[1:-1]) if len(self) else []

    def subset(self, indices: np.ndarray) -> Samples:
        """The samples at ``indices``, in that order."""
        indices = np.asarray(indices)
        lengths = np.diff(self.history_offsets)[indices]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        starts = np.repeat(self.history_offsets[:-1][indices] - offsets[:-1], lengths)
        return Samples(
            user_ids=self.user_ids[indices],
            history_offsets=offsets,
            history_items=self.history_items[starts + np.arange(offsets[-1])],
            targets=self.targets[indices],
            ratings=self.ratings[indices],
            timestamps=self.timestamps[indices],
        )


def sample_at_most(count: int, limit: int, seed: int) -> np.ndarray:
    """Indices of at most ``limit`` of ``count`` samples (0: all), a seeded draw in ascending order."""
    if not limit or count <= limit:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))


def of_users_at_most(user_ids: np.ndarray, limit: int | None, seed: int) -> np.ndarray:
    """bool (S,): samples of a seeded draw of at most ``limit`` users; ``None``: of all."""
    users = np.unique(user_ids)
    if limit is not None and len(users) > limit:
        users = np.random.default_rng(seed).choice(users, limit, replace=False)
    return np.isin(user_ids, users)


class Dataset:
    """A dataset directory, verified against its manifest and read on demand."""

    def __init__(self, directory: str | Path, *, verify: bool = True):
        """Open the directory.

        Raises:
            UserError: not a finished dataset directory, or changed since it was written.
        """
        self.directory = Path(directory)
        self.manifest: Manifest = read_manifest(self.directory, "dataset", verify=verify)

    @property
    def fingerprint(self) -> str:
        """Hash of content and configuration."""
        return self.manifest.fingerprint

    @property
    def train_end(self) -> int:
        """UTC seconds of the last training event.

        Raises:
            UserError: its manifest does not say.
        """
        found = self.manifest.extra.get("train_end")
        if found is None:
            raise UserError(
                f"{self.directory}: its manifest has no 'train_end'; prepare the data again",
                code="dataset.other_version",
            )
        return int(found)

    @cached_property
    def items(self) -> pa.Table:
        """``items.parquet``, in order of ``item_id``."""
        return pq.read_table(self.directory / "items.parquet")

    @cached_property
    def users(self) -> pa.Table:
        """``users.parquet``, in order of ``user_id``."""
        return pq.read_table(self.directory / "users.parquet")

    @cached_property
    def interactions(self) -> pa.Table:
        """``interactions.parquet``: every kept event by user, then time, then file order."""
        return pq.read_table(self.directory / "interactions.parquet")

    @cached_property
    def item_keys(self) -> list[str]:
        """asin or parent_asin of each item."""
        return self.items["item_key"].to_pylist()

    @cached_property
    def titles(self) -> list[str]:
        """Title of each item; not unique."""
        return self.items["title"].to_pylist()

    @cached_property
    def title_ids(self) -> np.ndarray:
        """int32 (n_items,): items that share a title share it."""
        return self.items["title_id"].to_numpy()

    @cached_property
    def train_counts(self) -> np.ndarray:
        """int64 (n_items,): interactions of each item in the training period."""
        return self.items["train_count"].to_numpy().astype(np.int64)

    @property
    def n_items(self) -> int:
        """Size of the catalogue."""
        return self.items.num_rows

    @property
    def n_users(self) -> int:
        """Number of users."""
        return pq.read_metadata(self.directory / "users.parquet").num_rows

    @property
    def has_titles(self) -> bool:
        """False where an item has none: its key stands in, and text models refuse the dataset."""
        return bool(self.manifest.extra.get("has_titles", True))

    def require_titles(self) -> None:
        """Refuse a dataset in which keys stand for titles.

        Raises:
            UserError: an item has no title; says how many, and the cure.
        """
        if self.has_titles:
            return
        checks = self.manifest.extra.get("checks", [])
        found = [check["detail"] for check in checks if check["name"] == "all_items_titled"]
        raise UserError(
            f"{self.directory}: {found[0] if found else 'items have no title'}, and this model reads titles; "
            "run data-prep with --metadata that covers them, and --title-filter strict to drop the others",
            code="dataset.no_titles",
        )

    def split(self, name: str) -> Samples:
        """Read one split.

        Raises:
            UserError: there is no such split.
        """
        if name not in SPLITS:
            raise UserError(f"split is {name!r}; a dataset has {', '.join(SPLITS)}", code="config.bad_value")
        table = pq.read_table(self.directory / f"{name}.parquet").combine_chunks()
        histories = table["history"].combine_chunks()
        if isinstance(histories, pa.ChunkedArray):
            histories = pa.concat_arrays(histories.chunks)
        lengths = pc.list_value_length(histories).to_numpy(zero_copy_only=False).astype(np.int64)
        return Samples(
            user_ids=table["user_id"].to_numpy(),
            history_offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            history_items=pc.list_flatten(histories).to_numpy(zero_copy_only=False).astype(np.int32),
            targets=table["target"].to_numpy(),
            ratings=table["rating"].to_numpy(),
            timestamps=table["timestamp"].to_numpy(),
        )
