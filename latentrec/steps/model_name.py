"""The default name of a registered model: system and dataset, so that every shop has champions of its own.

Two shops under one name would take turns: each run would be compared with, or replace, the other's champion.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from latentrec.core.redact import redact
from latentrec.evaluation.evaluate_config import Champion
from latentrec.models import read_model
from latentrec.storage import read_manifest

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


def model_name_for(dataset: str | Path, model: str | Path, name: str = "") -> str:
    """The name that a model is registered under: the one given, else by its system and its dataset.

    Args:
        dataset: directory of the dataset that it was trained on.
        model: its directory.
        name: asked for; empty: the default.

    Raises:
        UserError: a directory is not what it should be.
    """
    if name:
        return name
    reviews = read_manifest(dataset, "dataset", verify=False).config.get("reviews") or ()
    return default_model_name(read_model(model, verify=False)[0].system, list(reviews))


def _dataset_of(location: str) -> str:
    """Name of the dataset behind one location: of the file, else of the nearest folder that has one."""
    path = re.sub(r"^[a-z][a-z0-9+.-]*://", "", redact(location.strip()), flags=re.IGNORECASE)
    path = path.partition("?")[0].partition("#")[0]
    parts = [part for part in path.split("/") if part not in ("", ".", "..", "~")]
    for place, part in reversed(list(enumerate(parts))):
        sample = re.fullmatch(r"seed-(\d+)", part)
        if sample and place:  # the generated sample of another seed is another shop
            return parts[place - 1] + ("" if sample[1] == "42" else f"-{sample[1]}")
        if "=" in part:  # a partition of a table (year=2018) is not its name
            continue
        while _SUFFIX.search(part):
            part = _SUFFIX.sub("", part)
        part = re.sub(r"^(reviews?|ratings?)[_-]+|[_-]+(reviews?|ratings?)$", "", part, flags=re.IGNORECASE)
        part = re.sub(r"_5$", "", part)
        name = re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-")[:_LONGEST].strip("-")
        if name and not all(_GENERIC.fullmatch(word) for word in name.split("-")):
            return name
    return ""


def champion_for(dataset: str | Path, model: str | Path, name: str = "") -> Champion | None:
    """The champion that a model is compared with; arguments as of :func:`model_name_for`.

    Returns:
        ``None`` where the registry has none.

    Raises:
        UserError: a directory is not what it should be, or the registry cannot be asked.
    """
    from latentrec.registry.download import find_champion

    return find_champion(f"models:/{model_name_for(dataset, model, name)}@champion")
