"""A dataset directory as RecBole's pre-split sequential files, so that both sides see the same samples.

RecBole (https://recbole.io) reads "atomic files": tab-separated, a type behind each column's name. With
``benchmark_filename`` it takes the splits as given and augments nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from latentrec.core import UserError
from latentrec.data import SPLITS, Dataset, Samples

HEADER = "user_id:token\titem_id_list:token_seq\titem_id:token"
ITEM_HEADER = "item_id:token"


def export(dataset: Dataset, directory: Path, name: str) -> dict[str, int]:
    """Write ``name.{train,valid,test}.inter`` and ``name.item`` into ``directory/name``.

    One line a sample, in the split's order: user, history (oldest first, blanks between), target. Items
    and users are their ids here, in decimal; ``name.item`` lists the whole catalogue, so that items which no
    sample holds are candidates on both sides. Training samples without a history are left out, as no
    sequence model of either side can read them.

    Returns:
        The number of lines of each split.

    Raises:
        UserError: a sample of validation or test has no history: the two sides would be evaluated on
            different samples.
    """
    folder = directory / name
    folder.mkdir(parents=True, exist_ok=True)
    lines = [ITEM_HEADER, *(str(item) for item in range(dataset.n_items))]
    (folder / f"{name}.item").write_text("\n".join(lines) + "\n", encoding="utf-8")
    counts = {}
    for split in SPLITS:
        samples = dataset.split(split)
        kept = np.flatnonzero(np.diff(samples.history_offsets) > 0)
        if split != "train" and len(kept) < len(samples):
            raise UserError(
                f"{dataset.directory}/{split}.parquet: {len(samples) - len(kept)} samples have no history, "
                "which RecBole cannot read; prepare with --split leave_one_out and users of 3 events or more",
                code="dataset.check_failed",
            )
        counts[split] = len(kept)
        with (folder / f"{name}.{split}.inter").open("w", encoding="utf-8") as stream:
            stream.writelines(f"{line}\n" for line in (HEADER, *_lines(samples, kept)))
    return counts


def _lines(samples: Samples, kept: np.ndarray) -> Iterator[str]:
    for index in kept:
        history = " ".join(map(str, samples.history(index)))
        yield f"{samples.user_ids[index]}\t{history}\t{samples.targets[index]}"
