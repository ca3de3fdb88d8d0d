"""The default name of a registered model: system and dataset, so that every shop has champions of its own.

Two shops under one name would take turns: each run would be compared with, or replace, the other's champion.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_SUFFIX = re.compile(
    r"\.(jsonl?|ndjson|csv|tsv|parquet|txt|dat|inter|item|gz|gzip|zst|zstd|bz2|xz|zip)$", re.IGNORECASE
)
_GENERIC = re.compile(
    r"(reviews?|ratings?|interactions?|events?|data|dataset|input|inputs|purchases|clicks|raw|part|u|files?|"
    r"train|all|meta|metadata|\d*)",
    re.IGNORECASE,
)
_LONGEST = 60


def default_model_name(system: str, reviews: Sequence[str]) -> str:
    """``latentr3-gift-cards`` for a ``Gift_Cards_5.json.gz``.

    The dataset's name is that of the review file, without what formats add to it (extensions, ``reviews_``,
    the ``_5`` of a 5-core file); where the file's name says nothing (``reviews.json``), that of its folder.
    Of several files it is the first words that their names have in common, else the first one's.

    Args:
        system: ``latentr3``, ``lares``, ``reczero`` or ``recone``.
        reviews: locations of the review files.
    """
    names = [name for name in map(_dataset_of, reviews) if name]
    if not names:
        return f"{system}-shop"
    shared = []
    for words in zip(*(name.split("-") for name in names), strict=False):
        if len(set(words)) > 1:
            break
        shared.append(words[0])
    return f"{system}-{'-'.join(shared) or names[0]}"


def _dataset_of(location: str) -> str:
    """Name of the dataset behind one location: of the file, else of the nearest folder that has one."""
    path = re.sub(r"^[a-z][a-z0-9+.-]*://", "", location.strip(), flags=re.IGNORECASE)
    path = path.partition("?")[0].partition("#")[0]
    for part in reversed([part for part in path.split("/") if part not in ("", ".", "..", "~")]):
        while _SUFFIX.search(part):
            part = _SUFFIX.sub("", part)
        part = re.sub(r"^(reviews?|ratings?)[_-]+|[_-]+(reviews?|ratings?)$", "", part, flags=re.IGNORECASE)
        part = re.sub(r"_5$", "", part)
        name = re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-")[:_LONGEST].strip("-")
        if name and not all(_GENERIC.fullmatch(word) for word in name.split("-")):
            return name
    return ""
