"""Memory grows with interactions and not with text; a 20 M review file goes through under 6 GB."""

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
def test_twenty_million_reviews_go_through_under_six_gigabytes(tmp_path):
    folder = os.environ.get("LATENTREC_BIG_FILES")
    path = Path(folder or tmp_path) / "reviews-20000000.json"
    write_reviews(path, 20_000_000)
    measured = run(["--reviews", path, "--output", tmp_path / "out"])
    seconds, peak = measured["seconds"], measured["peak_mb"]
    counts = read_manifest(tmp_path / "out", "dataset").counts
    assert counts["raw"] == 20_000_000
    size = path.stat().st_size
    record_figure(
        "20 M reviews through data-prep",
        f"{size / 1e9:.1f} GB in {seconds:.0f} s ({measured['cpu_seconds']:.0f} processor seconds, "
        f"{20e6 / seconds:,.0f} reviews/s), peak {peak:,.0f} MB, "
        f"{counts['interactions']:,} interactions kept",
    )
    assert peak < 6000
