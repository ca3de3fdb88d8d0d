"""Fuzzed inputs: no traceback, no 500, nothing written outside, memory under 1 GB."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.slow_figures import record_figure

ROOT = Path(__file__).resolve().parents[2]


def run(name: str, count: int, folder: Path, seed: int = 1) -> dict:
    command = [sys.executable, "-m", "tests.fuzz.campaigns", name, str(count), str(seed), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["count"] == count
    assert figures["peak_mb"] < 1000
    return figures


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("data preparation", 60),
        ("manifests and indexes", 200),
        ("scoring bodies", 200),
        ("parameters", 100),
        ("other files", 200),
    ],
)
def test_a_few_fuzzed_inputs(tmp_path, name, count):
    run(name, count, tmp_path / "fuzz", seed=7)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("data preparation", 10_000),
        ("manifests and indexes", 10_000),
        ("scoring bodies", 10_000),
        ("parameters", 5_000),
        ("other files", 10_000),
    ],
)
def test_fuzzed_inputs(tmp_path, name, count):
    figures = run(name, count, tmp_path / "fuzz")
    record_figure(
        f"fuzz: {name}",
        f"{count:,} inputs, {figures.get('refused', 0):,} refused, {figures.get('used', 0):,} used, no "
        f"traceback, {figures['peak_mb']:.0f} MB, {figures['seconds']:.0f} s",
    )


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not installed (pip install atheris; it has no wheel for every machine)",
)
@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("review lines", 5_000),
        ("manifests and indexes", 20_000),
        ("gguf files", 20_000),
        ("scoring bodies", 20_000),
    ],
)
def test_inputs_that_coverage_leads_to(tmp_path, name, runs):
    if name == "gguf files":
        pytest.importorskip("gguf")
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.atheris_campaigns",
        name,
        str(runs),
        "1",
        str(tmp_path / "fuzz"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    ((count, seconds),) = re.findall(r"Done (\d+) runs in (\d+) second", done.stderr)
    covered = re.findall(r"cov: (\d+)", done.stderr)[-1]
    assert int(count) == runs
    record_figure(f"atheris: {name}", f"{runs:,} inputs, {covered} branches reached, no fault, {seconds} s")
