"""The Makefile hands values on through the environment, as they are, and refuses unknown variables."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.errors import refused

ROOT = Path(__file__).resolve().parents[2]


def make(*words: str, home: Path | None = None) -> subprocess.CompletedProcess:
    """Run make; with ``home``, in a copy of the Makefile whose Python only tells what it was given."""
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    return subprocess.run(
        ["make", *words], cwd=home or ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def home(tmp_path) -> Path:
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "docker/requirements").mkdir(parents=True)
    (tmp_path / "docker/requirements/dev.txt").touch()
    bin_ = tmp_path / ".venv/bin"
    bin_.mkdir(parents=True)
    teller = (
        f"#!{sys.executable}\nimport os, sys\nprint([os.path.basename(sys.argv[0]), *sys.argv[1:]], "
        "{k: v for k, v in os.environ.items() if k in ('REVIEWS', 'PARAMS', 'SETTINGS', 'SEED', 'MODEL')})\n"
    )
    for name in ("python", "latentrec"):
        (bin_ / name).write_text(teller)
        (bin_ / name).chmod(0o755)
    for name in (".requirements", ".installed"):
        (tmp_path / ".venv" / name).touch()
    return tmp_path


@pytest.mark.parametrize("name", ["LR", "EPOCHS", "REVIEW"])
def test_a_variable_that_make_has_not_is_refused(name):
    done = make("-n", "run", f"{name}=1")
    assert done.returncode != 0
    assert f"unknown variable: {name}." in done.stderr
    assert "PARAMS='sft.learning_rate=1e-4'" in done.stderr


def test_run_gets_its_variables_as_they_are(home):
    odd = 'sft.backbone=/o\'brien/"my model" settings={"evaluate":{"n_resamples":200}}; touch X'
    done = make("run", f"PARAMS={odd}", "REVIEWS=/o'brien/r.json", "SETTINGS=run.yaml", "SEED=7", home=home)
    told, given = eval_pair(done.stdout)
    assert told == ["python", "-m", "pipeline.run_local"]
    assert {name: value for name, value in given.items() if value} == {
        "PARAMS": odd,
        "REVIEWS": "/o'brien/r.json",
        "SETTINGS": "run.yaml",
        "SEED": "7",
    }
    assert not (home / "X").exists()


def test_a_model_s_name_is_no_shell_command(home):
    done = make("recommend", "MODEL=m'; touch X; '", 'HISTORY=a"b', "K=3", home=home)
    told, _ = eval_pair(done.stdout)
    assert told == ["latentrec", "recommend", "--model", "m'; touch X; '", "--history", 'a"b', "--k", "3"]
    assert not (home / "X").exists()


@pytest.mark.parametrize("name", ["runs", "my runs", "o'brien", "a?b", "100% #1", 'x"; touch X; "'])
def test_recommend_asks_the_store_that_run_made(home, monkeypatch, name):
    from latentrec.tracking.embedded_store import embedded_path
    from pipeline.local_runner import RunFolders

    (home / ".venv/bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (home / ".venv/bin/latentrec").write_text("#!/bin/sh\nprintenv MLFLOW_TRACKING_URI\n")
    (home / "latentrec").symlink_to(ROOT / "latentrec")
    (home / "pipeline").symlink_to(ROOT / "pipeline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("RUNS_DIR", name)
    told = make("recommend", "MODEL=models:/x/1", home=home).stdout.strip()
    assert told == RunFolders(home / name).environment["MLFLOW_TRACKING_URI"]
    assert embedded_path(told) == home / name / "mlflow.db"
    assert not (home / "X").exists()


@pytest.mark.parametrize("target", ["pipeline-submit", "pipeline-schedule", "pipeline-pause"])
def test_cluster_targets_put_no_value_into_a_shell_command(home, target):
    value = "a'; touch X; '"
    done = make(target, f"PARAMS={value}", f"ID={value}", f"CRON={value}", f"SYSTEM={value}", home=home)
    assert done.returncode == 0, done.stderr
    assert not (home / "X").exists()


def eval_pair(text: str) -> tuple[list, dict]:
    import ast

    words, _, given = text.strip().splitlines()[-1].partition("] ")
    return ast.literal_eval(words + "]"), ast.literal_eval(given)


def test_serve_runs_mlflow_of_the_environment_without_activation(home):
    (home / ".venv/bin/mlflow").write_text('#!/bin/sh\nfor one in "$@"; do echo "$one"; done\n')
    (home / ".venv/bin/mlflow").chmod(0o755)
    model = "models:/my shop's@champion"
    words = ["--env-manager", "local", "--host", "127.0.0.1", "--port"]
    for port, given in (("5001", []), ("5999", ["PORT=5999"])):
        told = make("serve", f"MODEL={model}", *given, home=home).stdout.splitlines()
        assert told[-10:] == ["models", "serve", "--model-uri", model, *words, port]


@pytest.mark.parametrize(
    ("environment", "code", "named"),
    [
        ({"CATEGORY_YEAR": "2018"}, "config.missing_value", "CATEGORY_YEAR"),
        ({"CATEGORY": "Software", "CATEGORY_YEAR": "2020"}, "config.bad_value", "'2020'"),
        ({"CATEGORY": "Software", "CATEGORY_YEAR": "2014"}, "download.unknown_category", "'Software'"),
        ({"CATEGORY": "Software", "REVIEWS": "r.json"}, "config.conflict", "REVIEWS"),
    ],
)
def test_a_category_and_its_edition_are_checked_before_anything_is_fetched(
    tmp_path, monkeypatch, environment, code, named
):
    from pipeline.run_local import main

    monkeypatch.setenv("RUNS_DIR", str(tmp_path / "runs"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with refused(code, named):
        main([])
    assert not (tmp_path / "runs").exists()


def test_a_category_s_edition_decides_what_is_fetched(tmp_path, monkeypatch):
    import argparse

    from pipeline import run_local
    from pipeline.local_runner import RunFolders

    fetched = []

    def fetch(*arguments):
        fetched.append(arguments)
        return "reviews.jsonl.gz", "meta.jsonl.gz"

    monkeypatch.setattr("latentrec.data.amazon_downloads.fetch_category", fetch)
    given = argparse.Namespace(category="Software", category_year="2023", reviews="", metadata="")
    folders = RunFolders(tmp_path)
    expected = {run_local.REVIEWS: "reviews.jsonl.gz", "data_metadata": "meta.jsonl.gz"}
    assert run_local._inputs(given, folders, {}) == expected
    given.category_year = ""
    run_local._inputs(given, folders, {})
    assert fetched == [
        ("Software", 2023, tmp_path / "downloads"),
        ("Software", 2018, tmp_path / "downloads"),
    ]


def test_setup_uses_uv_where_there_is_one_and_pip_else(home, monkeypatch, tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sh", "bash", "touch", "make", "awk"):
        (programs / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(programs))
    installs = [line for line in make("-nB", "setup", home=home).stdout.splitlines() if " install " in line]
    assert len(installs) == 3
    assert all(line.startswith(".venv/bin/python -m pip install") for line in installs)
    (programs / "uv").write_text("#!/bin/sh\n")
    (programs / "uv").chmod(0o755)
    with_uv = [line for line in make("-nB", "setup", home=home).stdout.splitlines() if " install " in line]
    assert all(f"{programs}/uv pip install --quiet --python .venv/bin/python" in line for line in with_uv)
    assert all(
        "|| .venv/bin/python -m pip install" in line for line in with_uv
    )  # an index that uv cannot reach
    assert "--no-deps --require-hashes -r docker/requirements/dev.txt" in with_uv[0]
