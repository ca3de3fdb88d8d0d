"""The product metadata that lies beside a review file, so that one box of Kubeflow's form starts a run."""

from __future__ import annotations

from collections.abc import Sequence

from latentrec.storage import store_for


def metadata_beside(reviews: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Metadata by the names that Amazon's editions and our sample give it.

    ``reviews_Books.json.gz`` has ``meta_Books.json.gz``, ``Gift_Cards.jsonl.gz`` has
    ``meta_Gift_Cards.jsonl.gz``, ``reviews.json`` has ``meta.json``.

    Args:
        reviews: locations of review files.

    Returns:
        One file for each review file, or nothing where any lacks its own; and the locations that were tried.

    Raises:
        UserError, StorageError: storage refuses, or does not answer.
    """
    found: list[str] = []
    tried: list[str] = []
    for review in reviews:
        folder, slash, name = review.rpartition("/")
        if not name or set(name) & set("*?["):
            return (), tuple(tried)
        other = f"meta{name.removeprefix('reviews')}" if name.startswith("reviews") else f"meta_{name}"
        tried.append(f"{folder}{slash}{other}")
        if store_for(tried[-1]).stat(tried[-1]) is None:
            return (), tuple(tried)
        found.append(tried[-1])
    return tuple(found), tuple(tried)
