"""A module's fixture is made by one worker, however many there are."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.worker_groups import FIRST, FOLDERS, group_of, longest_first

ROOT = Path(__file__).resolve().parents[1]
CONFTEST = """
from tests.worker_groups import GroupScheduling

def pytest_xdist_make_scheduler(config, log):
    return GroupScheduling(config, log)
"""
TESTS = """
import pytest

@pytest.fixture(scope="module")
def made(request):
    with open({log!r}, "a") as log:
        log.write(request.module.__name__ + "\\n")

@pytest.mark.parametrize("number", range(20))
def test_it(made, number):
    pass
"""


def test_a_module_s_fixture_is_made_once(tmp_path):
    log = tmp_path / "made.txt"
    (tmp_path / "conftest.py").write_text(CONFTEST)
    for name in ("test_one.py", "test_two.py", "test_three.py"):
        (tmp_path / name).write_text(TESTS.format(log=str(log)))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "3",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
    ]
    done = subprocess.run(
        [*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert "60 passed" in done.stdout, done.stdout + done.stderr
    assert sorted(log.read_text().split()) == ["test_one", "test_three", "test_two"]


def test_what_takes_longest_comes_first():
    names = ["tests/a.py::t", "tests/serving/b.py::t", "tests/c.py::t", "tests/pipeline/test_run.py::t[1]"]
    items = [SimpleNamespace(nodeid=name) for name in names]
    longest_first(items)
    assert [item.nodeid for item in items] == [names[3], names[1], names[0], names[2]]


@pytest.mark.parametrize("name", [*FIRST, *(f"tests/{folder}" for folder in FOLDERS)])
def test_every_named_group_is_there(name):
    assert (ROOT / name).exists()
    assert group_of(f"{name}/test_x.py::t" if not name.endswith(".py") else f"{name}::t") in (
        name,
        f"{name}/test_x.py",
    )
