"""The public Amazon review files by category: where they lie, and a local copy that is kept between runs."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

from latentrec.core import UserError
from latentrec.core.documents import parse_document
from latentrec.storage import sha256_file, store_for

_UCSD = "https://mcauleylab.ucsd.edu/public_datasets/data"
_SNAP = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
FILES = {
    2014: (f"{_SNAP}/reviews_{{0}}.json.gz", f"{_SNAP}/meta_{{0}}.json.gz"),
    2018: (
        f"{_UCSD}/amazon_v2/categoryFiles/{{0}}.json.gz",
        f"{_UCSD}/amazon_v2/metaFiles2/meta_{{0}}.json.gz",
    ),
    2023: (
        f"{_UCSD}/amazon_2023/raw/review_categories/{{0}}.jsonl.gz",
        f"{_UCSD}/amazon_2023/raw/meta_categories/meta_{{0}}.jsonl.gz",
    ),
}
"""Reviews and metadata of each edition; ``{0}`` stands for the category."""

_ALL = (
    "Automotive Books CDs_and_Vinyl Cell_Phones_and_Accessories Clothing_Shoes_and_Jewelry Digital_Music "
    "Electronics Grocery_and_Gourmet_Food Home_and_Kitchen Kindle_Store Movies_and_TV Musical_Instruments "
    "Office_Products Patio_Lawn_and_Garden Pet_Supplies Sports_and_Outdoors Tools_and_Home_Improvement "
    "Toys_and_Games Video_Games "
)
_SINCE_2018 = (
    "All_Beauty Appliances Arts_Crafts_and_Sewing Gift_Cards Industrial_and_Scientific "
    "Magazine_Subscriptions Software "
)
CATEGORIES = {
    2014: frozenset(
        (_ALL + "Amazon_Instant_Video Apps_for_Android Baby Beauty Health_and_Personal_Care").split()
    ),
    2018: frozenset((_ALL + _SINCE_2018 + "AMAZON_FASHION Luxury_Beauty Prime_Pantry").split()),
    2023: frozenset(
        (
            _ALL + _SINCE_2018 + "Amazon_Fashion Baby_Products Beauty_and_Personal_Care Handmade_Products "
            "Health_and_Household Health_and_Personal_Care Subscription_Boxes Unknown"
        ).split()
    ),
}
"""Names of the categories of each edition."""


def category_uris(category: str, year: int) -> tuple[str, str]:
    """Public locations of a category's reviews and metadata.

    Raises:
        UserError: the edition has no such category.
    """
    if category not in CATEGORIES[year]:
        close = difflib.get_close_matches(category.replace(" ", "_"), CATEGORIES[year], 3, 0.5)
        hint = (
            f"did you mean {' or '.join(close)}?"
            if close
            else f"it has {', '.join(sorted(CATEGORIES[year]))}"
        )
        raise UserError(
            f"the {year} edition has no category '{category}'; {hint}", code="download.unknown_category"
        )
    reviews, metadata = FILES[year]
    return reviews.format(category), metadata.format(category)


def fetch_category(category: str, year: int, cache_dir: str | Path) -> tuple[str, str]:
    """Local copies of a category's reviews and metadata; fetched when not there yet.

    A copy is used again when the ``.json`` note beside it and its length agree; nothing is asked of the
    network then. Interrupted transfers resume.

    Raises:
        UserError: the site cannot be reached, has no such file, or the length is not the one announced.
    """
    directory = Path(cache_dir) / f"amazon{year}"
    reviews, metadata = (_fetch(uri, directory) for uri in category_uris(category, year))
    return str(reviews), str(metadata)


def _fetch(uri: str, directory: Path) -> Path:
    path = directory / uri.rsplit("/", 1)[1]
    note_path = path.with_name(path.name + ".note.json")
    note = _read_note(note_path)
    if note and path.is_file() and path.stat().st_size == note["bytes"] and note["uri"] == uri:
        return path
    directory.mkdir(parents=True, exist_ok=True)
    store = store_for(uri)
    info = store.stat(uri)
    if info is None:
        raise UserError(
            f"{uri}: the site has no such file; give --reviews and --metadata instead",
            code="download.not_found",
        )
    store.download_file(uri, path)
    size = path.stat().st_size
    if info.size >= 0 and size != info.size:
        path.unlink()
        raise UserError(
            f"{uri}: {size:,} bytes arrived, {info.size:,} were announced; run it again",
            code="download.incomplete",
        )
    body = {"uri": uri, "bytes": size, "sha256": sha256_file(path), "version": info.version}
    note_path.write_text(json.dumps(body, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return path


def _read_note(path: Path) -> dict[str, Any] | None:
    try:
        note = parse_document(path.read_bytes())
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) and {"uri", "bytes", "sha256"} <= set(note) else None
