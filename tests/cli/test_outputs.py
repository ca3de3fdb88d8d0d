"""Every command, every output that a user may mistype: nothing of the user's is ever lost."""

import os
from pathlib import Path

import pytest

from latentrec.cli import COMMANDS, command_parser, main
from latentrec.storage import ArtifactWriter

ARGUMENTS = {
    "sample": "--users 2 --items 72 --events-per-user 2",
    "data-prep": "--reviews reviews.json --k-core 1",
    "sft": "--dataset ds --backbone tiny",
    "grpo": "--dataset ds --model m",
    "title-objective": "--dataset ds --model m",
    "train-sequential": "--dataset ds --encoder sasrec",
    "rpt": "--dataset ds --model m",
    "lares-depth": "--dataset ds --model m",
    "pretrain-rating": "--dataset ds",
    "traces": "--dataset ds",
    "cold-start-sft": "--dataset ds --model m --traces traces.jsonl",
    "rating-grpo": "--dataset ds --model m",
    "evaluate": "--dataset ds --model m=m",
    "pull": "--model models:/x/1",
    "batch-score": "--model models:/x/1 --users users.jsonl",
    "run-summary": "--run runs/status/none",
}
WITHOUT_OUTPUT = {"compare", "preflight", "register", "promote", "recommend", "storage"}
FREE = {"batch-score", "run-summary"}
"""One file in any folder or bucket: there these refuse only what stands at the file's place."""
TAKEN = {
    "batch-score": {"a file", "below a file", "a dangling link", "a table of the user's", "read-only"},
    "run-summary": {
        "a folder of the user's", "the home", "a file", "below a file", "a link", "a dangling link",
        "read-only", "inside an input", "a file below the home", "a folder below the home",
        "a table of the user's",
    },
}  # fmt: skip
OUTPUTS = {
    "a folder of the user's": "folder",
    "the working directory": ".",
    "the parent": "..",
    "the root": "/",
    "the home": "~",
    "an input's folder": "ds",
    "inside an input": "ds/out",
    "around the inputs": "../work",
    "a file": "file.txt",
    "below a file": "file.txt/out",
    "a link": "link",
    "a dangling link": "dangling",
    "an artifact of another kind": "other",
    "an artifact with a file of the user's": "mixed",
    "read-only": "locked/out",
    "a file below the home": "~/precious.txt",
    "a folder below the home": "~/photos",
    "a table of the user's": "mine.parquet",
    "nothing": "",
    "elsewhere": "https://example.org/out",
}


def artifact(path: Path, kind: str) -> None:
    with ArtifactWriter(path, kind, {}) as writer:
        (writer.path / "data.bin").write_text(kind)


def snapshot(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else (path.read_text() if path.is_file() else "<folder>")
        for path in folder.rglob("*")
    }


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    work = tmp_path / "user" / "work"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    for name in ("MLFLOW_TRACKING_URI", "LATENTREC_RUN_ID", "LATENTREC_STATUS_ROOT"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "user" / "precious.txt").write_text("precious")
    (tmp_path / "user" / "photos").mkdir()
    (tmp_path / "user" / "photos" / "cat.txt").write_text("cat")
    for name in ("reviews.json", "traces.jsonl", "users.jsonl", "file.txt", "mine.parquet"):
        Path(name).write_text("mine")
    Path("folder").mkdir()
    Path("folder/notes.txt").write_text("thesis")
    Path("link").symlink_to("folder")
    Path("dangling").symlink_to("nowhere")
    artifact(Path("ds"), "dataset")
    artifact(Path("m"), "model")
    artifact(Path("other"), "some_other_kind")
    artifact(Path("mixed"), "model")
    Path("mixed/notes.txt").write_text("thesis")
    Path("locked").mkdir(mode=0o555)
    return tmp_path / "user"


def test_every_command_with_an_output_is_tried_here():
    assert set(ARGUMENTS) | WITHOUT_OUTPUT == set(COMMANDS)
    for command in COMMANDS:
        assert ("--output" in command_parser(command).format_help()) == (command in ARGUMENTS), command


@pytest.mark.parametrize("command", ARGUMENTS)
def test_nothing_of_the_users_is_lost_whatever_the_output(home, command, capsys, monkeypatch):
    if os.geteuid() == 0:  # root writes everywhere: what a user is told is asked of the kernel in one place
        real = os.access
        monkeypatch.setattr(
            os, "access", lambda path, *a, **k: "locked" not in str(path) and real(path, *a, **k)
        )
    for what, output in OUTPUTS.items():
        before = snapshot(home)
        with pytest.raises(SystemExit) as exit_:
            main([command, *ARGUMENTS[command].split(), f"--output={output}"])
        printed = capsys.readouterr()
        after = snapshot(home)
        assert {name: after.get(name) for name in before} == before, what
        assert exit_.value.code == 2, what
        assert printed.err.startswith("error: "), what
        assert "Traceback" not in printed.err
        if command in FREE and what not in TAKEN[command]:
            continue
        if (command, what) != ("data-prep", "an input's folder"):  # a dataset may be made again
            assert "--output" in printed.err, (what, printed.err)
        assert after == before, what


@pytest.mark.parametrize("command", ["sample", "data-prep"])
def test_tilde_is_the_home(home, command, capsys):
    Path("reviews.json").write_text(
        "".join(f"U{n % 3},B00000000{n % 4},{n % 5 + 1},{1_500_000_000 + n * 86_400}\n" for n in range(24))
    )
    main([command, *ARGUMENTS[command].split(), "--output=~/made/x"])
    assert (home / "made" / "x" / "manifest.json").is_file()
    assert not Path("~").exists()
