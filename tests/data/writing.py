"""Small review files for tests."""

import gzip
import json
from pathlib import Path

import zstandard

DAY = 86_400
START = 1_500_000_000 // DAY * DAY


def review(user="U1", item="B000000001", rating=5.0, day=0, **more):
    """One review of the 2018 format."""
    return {
        "reviewerID": user,
        "asin": item,
        "overall": rating,
        "unixReviewTime": START + day * DAY,
        **more,
    }


def grid(users=6, items=5):
    """Every user reviews every item, one a day, each user starting elsewhere."""
    return [
        review(f"U{user}", f"B00000000{(user + step) % items}", float(1 + step % 5), day=step * 10 + user)
        for user in range(users)
        for step in range(items)
    ]


def titles(items=5, **more):
    """Metadata of the grid's items."""
    return [{"asin": f"B00000000{item}", "title": f"Thing {item}", **more} for item in range(items)]


def lines(rows) -> bytes:
    """JSON lines."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def write(path: Path, data: bytes) -> str:
    """Write bytes, compressed as the name says; returns the path as text."""
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    elif path.suffix == ".zst":
        data = zstandard.ZstdCompressor().compress(data)
    path.write_bytes(data)
    return str(path)
