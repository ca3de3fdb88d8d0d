"""The examples of CONTRIBUTING.md: each diff applies to today's source, and its command does what is said."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from latentrec.storage import read_manifest
from tests.fixtures.sequential_data import write_dataset

ROOT = Path(__file__).resolve().parents[2]
SECTION = re.compile(r"^## Add (?:an?) (.+?)\n(.*?)(?=^## |\Z)", re.M | re.S)
ROWS = [(f"user{u}", f"item{i}", 5 if (u + i) % 3 else 2, 40 * i + u) for u in range(40) for i in range(6)]


def examples() -> dict[str, tuple[str, str]]:
    """Section to its diff and its command."""
    found = {}
    for name, text in SECTION.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        (diff,) = re.findall(r"^```diff\n(.*?)^```", text, re.M | re.S)
        (command,) = re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)
        found[name] = (diff, command.strip())
    return found


def run_example(name: str, tmp_path: Path) -> Path:
    """Apply a section's diff to a copy of the source and run its command; returns the working folder."""
    if shutil.which("patch") is None:
        pytest.skip("no patch(1) on this machine")
    source, work = tmp_path / "source", tmp_path / "work"
    for folder in ("latentrec", "components", "pipeline"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    diff, command = examples()[name]
    done = subprocess.run(
        ["patch", "-p1"], input=diff, cwd=source, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    work.mkdir(exist_ok=True)
    words = command.split()
    program = {"latentrec": [sys.executable, "-m", "latentrec"], "python": [sys.executable]}[words[0]]
    environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONSAFEPATH": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    done = subprocess.run(
        [*program, *words[1:]], cwd=work, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return work


def write_rows(path: Path, delimiter: str) -> None:
    path.parent.mkdir(exist_ok=True)
    header = ("user", "item", "rating", "timestamp")
    lines = [header, *((u, i, r, 1_500_000_000 + 86_400 * t) for u, i, r, t in ROWS)]
    path.write_text("".join(delimiter.join(map(str, line)) + "\n" for line in lines))


def test_the_four_ways_to_extend_are_shown():
    assert set(examples()) == {"encoder", "option", "step", "dataset format"}


def test_an_encoder(tmp_path):
    write_dataset(tmp_path / "work" / "data", n_users=30)
    work = run_example("encoder", tmp_path)
    assert read_manifest(work / "model", "model").counts["parameters"] > 0


def test_an_option(tmp_path):
    write_rows(tmp_path / "work" / "reviews.csv", ",")
    work = run_example("option", tmp_path)
    manifest = read_manifest(work / "liked", "dataset")
    assert manifest.config["min_rating"] == 4
    assert manifest.counts["interactions"] == sum(stars >= 4 for _, _, stars, _ in ROWS)


def test_a_step(tmp_path):
    work = run_example("step", tmp_path)
    compiled = yaml.safe_load((work / "compiled" / "lares.yaml").read_text().split("\n---\n")[0])
    tasks = [
        task
        for component in compiled["components"].values()
        for task in component.get("dag", {}).get("tasks", {}).values()
    ]
    assert "GRU4Rec" in {task["taskInfo"]["name"] for task in tasks}


def test_a_dataset_format(tmp_path):
    write_rows(tmp_path / "work" / "reviews.psv", "|")
    work = run_example("dataset format", tmp_path)
    assert read_manifest(work / "from-pipes", "dataset").counts["interactions"] == len(ROWS)
