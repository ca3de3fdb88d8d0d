"""Every module that code, images and targets start with ``-m`` can be started; a moved one fails here."""

import ast
import importlib.util
import itertools
import re
from pathlib import Path

import pytest

from benchmarks.gpu import grid, resume
from latentrec.cli import command_parser

ROOT = Path(__file__).resolve().parents[1]
OURS = ("latentrec", "components", "pipeline", "benchmarks", "tests", "docker")
TEXTS = ("Makefile", ".ci/run", ".ci/containers", "docker", "manifests", "docs", "README.md", "examples")


def started_in_code() -> set[str]:
    """Modules after a literal ``"-m"`` in a list, tuple or call of our Python files."""
    found = set()
    for folder in OURS:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                words = getattr(node, "elts", None) or getattr(node, "args", None)
                if not isinstance(words, list):
                    continue
                values = [word.value if isinstance(word, ast.Constant) else None for word in words]
                found |= {str(after) for option, after in itertools.pairwise(values) if option == "-m"}
    return {name for name in found if ours(name)}


def started_in_text() -> set[str]:
    """Modules after ``python -m`` in the Makefile, scripts, Dockerfiles and documents."""
    found = set()
    for name in TEXTS:
        paths = [ROOT / name] if (ROOT / name).is_file() else (ROOT / name).rglob("*")
        for path in paths:
            if path.is_file() and path.suffix not in {".png", ".svg", ".gz", ".webp", ".lock"}:
                text = path.read_text(errors="ignore")
                found |= set(re.findall(r"(?:python3?|torchrun[^\n]*) -m ([\w.]+\w)", text))
    return {name for name in found if ours(name)}


def ours(name: str) -> bool:
    return name.split(".")[0] in OURS


@pytest.mark.parametrize("name", sorted(started_in_code() | started_in_text()))
def test_a_module_that_is_started_by_name_can_be_started(name):
    found = importlib.util.find_spec(name)
    assert found is not None, f"no module {name}"
    if found.submodule_search_locations is not None:
        assert importlib.util.find_spec(f"{name}.__main__") is not None, f"{name} has no __main__"


def test_modules_are_found_where_they_are_started():
    assert "latentrec" in started_in_code()
    assert "benchmarks.gpu" in started_in_text()


@pytest.mark.parametrize("flags", [resume.FLAGS, *((*grid.COMMON, *trial) for trial in grid.TRIALS.values())])
def test_options_that_the_gpu_script_gives_to_sft_exist(flags):
    command_parser("sft").parse_args([*flags, "--dataset", "data", "--output", "model"])
