"""The datasets of the study, and the users of Video Games that no other cell has touched."""

from __future__ import annotations

import gzip
import json
from hashlib import sha256
from pathlib import Path

GAMES = "amazon2018/Video_Games_sequences"
TOUCHED_USERS = 10_000
"""The users of ``docs/results.md``: those whose keys hash lowest under seed 42."""
CONFIRMATION_USERS = 10_000
SEED = 42
PLANS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "office": ("amazon2018/Office_Products", "Office_Products", ("--split", "temporal")),
    "cds": ("amazon2018/CDs_and_Vinyl", "CDs_and_Vinyl", ("--split", "temporal")),
    "games-small": (GAMES, "Video_Games", ("--split", "leave_one_out", "--max-users", "4000")),
}


def prepare(data: Path, datasets: Path) -> None:
    """Make the dataset directories that are not there yet."""
    for name, (folder, stem, flags) in PLANS.items():
        _prepare(
            data / folder / f"{stem}.json.gz", data / folder / f"meta_{stem}.json.gz", datasets / name, flags
        )
    output = datasets / "games-confirm"
    if not (output / "manifest.json").is_file():
        reviews = datasets / "games-confirm.json.gz"
        write_untouched(data / GAMES / "Video_Games.json.gz", reviews)
        _prepare(reviews, data / GAMES / "meta_Video_Games.json.gz", output, ("--split", "leave_one_out"))


def write_untouched(reviews: Path, output: Path) -> None:
    """The events of the 10,000 users whose keys hash next after those of ``docs/results.md``."""
    with gzip.open(reviews, "rt", encoding="utf-8") as stream:
        lines = [(json.loads(line)["reviewerID"], line) for line in stream]
    keys = sorted({key for key, _ in lines}, key=lambda key: sha256(f"{SEED}:{key}".encode()).digest())
    chosen = set(keys[TOUCHED_USERS : TOUCHED_USERS + CONFIRMATION_USERS])
    output.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(output, "wt", encoding="utf-8") as stream:
        stream.writelines(line for key, line in lines if key in chosen)


def _prepare(reviews: Path, metadata: Path, output: Path, flags: tuple[str, ...]) -> None:
    from latentrec.cli import main

    if not (output / "manifest.json").is_file():
        sources = ["--reviews", str(reviews), "--metadata", str(metadata), "--output", str(output)]
        main(["data-prep", *sources, "--k-core", "1", *flags])
