"""Review files of any size for the data benchmarks: 2018 format, grouped by item as the real ones are.

Reviews per user and per item are heavy-tailed (about 3.3 per user and 17 per item, as in Books 2018, with
fewer users in the tail so that a 5-core keeps about half), text lengths follow the real mean of about 300
characters, timestamps are whole days over ten years.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from typing import TextIO, cast

import numpy as np

_WORDS = [
    "the",
    "book",
    "was",
    "really",
    "good",
    "and",
    "I",
    "liked",
    "how",
    "it",
    "kept",
    "me",
    "reading",
    "until",
    "late",
    "in",
    "night",
    "because",
    "of",
    "story",
    "with",
    "great",
    "characters",
    "but",
    "some",
    "parts",
    "felt",
    "slow",
    "for",
    "price",
    "would",
    "recommend",
    "this",
    "product",
    "to",
    "everyone",
    "who",
    "wants",
    "quality",
    "sound",
    "works",
    "fine",
    "after",
    "two",
    "weeks",
    "no",
    "problem",
    "shipping",
    "fast",
    "nice",
    "gift",
    "not",
    "what",
    "expected",
    "returned",
]
LINES_PER_WRITE = 20_000
FIRST_DAY = 1_299_974_400


def write_reviews(path: Path, n: int, seed: int = 0) -> Path:
    """Write ``n`` reviews (about 580 bytes each), as gzip where ``path`` ends so; an existing one is kept."""
    if path.exists():
        return path
    generator = np.random.default_rng(seed)
    user = (generator.pareto(1.1, n) * (n * 0.02)).astype(np.int64) % (n // 3 + 1)
    item = np.sort((generator.pareto(1.2, n) * (n * 0.004)).astype(np.int64) % (n // 17 + 1))
    day = generator.integers(0, 3650, n)
    stars = generator.choice(5, n, p=(0.06, 0.05, 0.09, 0.2, 0.6)) + 1
    texts = [
        json.dumps(" ".join(generator.choice(_WORDS, max(3, int(generator.exponential(55))))) + ".")
        for _ in range(5000)
    ]
    text = generator.integers(0, len(texts), n)
    names = [f"Reader {number}" for number in range(1000)]
    temporary = path.with_suffix(".writing")
    with _opened(temporary, compress=path.suffix == ".gz") as stream:
        for start in range(0, n, LINES_PER_WRITE):
            rows = slice(start, start + LINES_PER_WRITE)
            stream.write(
                "".join(
                    f'{{"overall": {s}.0, "verified": true, "reviewTime": "03 11, 2014", "reviewerID": '
                    f'"A{_key(u)}", "asin": "B0{i:08d}", "style": {{"Format:": " Hardcover"}}, '
                    f'"reviewerName": "{names[u % 1000]}", "reviewText": {texts[t]}, '
                    f'"summary": "Five Stars", "unixReviewTime": {FIRST_DAY + d * 86_400}}}\n'
                    for u, i, d, s, t in zip(
                        user[rows].tolist(), item[rows].tolist(), day[rows].tolist(), stars[rows].tolist(),
                        text[rows].tolist(), strict=True,
                    )
                )
            )  # fmt: skip
    temporary.rename(path)
    return path


def _opened(path: Path, *, compress: bool) -> TextIO:
    if compress:
        return cast(TextIO, gzip.open(path, "wt", compresslevel=1, encoding="utf-8", newline="\n"))
    return path.open("w", encoding="utf-8", newline="\n")


def _key(number: int) -> str:
    """Thirteen letters and digits that do not rise with the number, as in reviewer ids."""
    return f"{number * 2_654_435_761 % 10**13:013d}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--reviews", required=True, type=int)
    arguments = parser.parse_args()
    print(write_reviews(arguments.output, arguments.reviews))
