"""Memory grows with interactions and not with text; the largest categories go through on one node."""

import os
from pathlib import Path

import pytest

from benchmarks.data_prep_reviews import write_reviews
from benchmarks.processes import run_measured
from latentrec.storage import read_manifest
from tests.fixtures.review_files import lines, review, write
from tests.fixtures.slow_figures import record_figure

ROOT = Path(__file__).resolve().parents[2]


def run(arguments):
    """Seconds and peak memory (MB) of data-prep in a process of its own."""
    return run_measured(["-m", "latentrec", "data-prep", *map(str, arguments)], ROOT)


def test_memory_does_not_grow_with_text(tmp_path):
    def rows(text):
        return [
            review(f"U{n % 4000}", f"B{n % 500:09d}", day=n % 3000, reviewText=text) for n in range(20_000)
        ]

    short = write(tmp_path / "short.json", lines(rows("x")))
    long = write(tmp_path / "long.json", lines(rows("x" * 12_000)))  # 240 MB more
    options = ["--k-core", 2]
    peaks = [
        run(["--reviews", path, "--output", tmp_path / "out", *options])["peak_mb"] for path in (short, long)
    ]
    assert peaks[1] - peaks[0] < 100, peaks


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("label", "reviews", "suffix", "limit_mb"),
    [
        ("20 M reviews", 20_000_000, "json", 6_000),
        ("as many reviews as Books 2018", 51_311_621, "json.gz", 8_000),
        ("as many reviews as Home and Kitchen 2023", 67_409_944, "json.gz", 10_000),
    ],
    ids=["20M", "books", "home-and-kitchen"],
)
def test_a_large_category_goes_through_on_one_node(tmp_path, label, reviews, suffix, limit_mb):
    path = Path(os.environ.get("LATENTREC_BIG_FILES") or tmp_path) / f"reviews-{reviews}.{suffix}"
    write_reviews(path, reviews)
    measured = run(["--reviews", path, "--output", tmp_path / "out"])
    seconds, peak = measured["seconds"], measured["peak_mb"]
    counts = read_manifest(tmp_path / "out", "dataset").counts
    assert counts["raw"] == reviews
    record_figure(
        f"{label} through data-prep",
        f"{reviews:,} in {path.stat().st_size / 1e9:.1f} GB ({suffix}) in {seconds:.0f} s "
        f"({measured['cpu_seconds']:.0f} processor seconds, {reviews / seconds:,.0f} reviews/s), "
        f"peak {peak:,.0f} MB, {counts['interactions']:,} interactions kept",
    )
    assert peak < limit_mb
