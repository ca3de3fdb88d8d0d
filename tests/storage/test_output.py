"""Output folders: nothing of the user's is ever lost, and a replaced artifact is replaced whole."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from latentrec.core import UserError
from latentrec.storage import ArtifactWriter, read_manifest
from latentrec.storage.output import OutputFolder
from latentrec.storage.output_checks import check_output, check_output_file, expand_output
from tests.errors import refused


def make(output: Path | str, text: str = "x", kind: str = "dataset", meanwhile=None, **options) -> None:
    with ArtifactWriter(output, kind, {"text": text}, **options) as writer:
        (writer.path / "a.parquet").write_text(text)
        if meanwhile is not None:
            meanwhile()


def fail() -> None:
    raise ZeroDivisionError


def snapshot(folder: Path) -> dict[str, str]:
    """Every entry below a folder with what it holds; links by their target."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else (path.read_text() if path.is_file() else "<folder>")
        for path in folder.rglob("*")
    }


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A working directory two levels deep, with things of the user's around it."""
    work = tmp_path / "user" / "work"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(tmp_path / "user" / "home"))
    (tmp_path / "user" / "home").mkdir()
    (tmp_path / "user" / "precious.txt").write_text("precious")
    (work / "folder").mkdir()
    (work / "folder" / "notes.txt").write_text("thesis")
    (work / "file.txt").write_text("hello")
    (work / "link").symlink_to("folder")
    (work / "dangling").symlink_to("nowhere")
    (work / "own_manifest").mkdir()
    (work / "own_manifest" / "manifest.json").write_text('{"name": "a web page", "schema_version": 1}')
    return work


@pytest.mark.parametrize(
    "output",
    [".", "..", "/", "../..", "folder", "folder/", "file.txt", "link", "link/", "dangling", "own_manifest",
     "file.txt/sub", "", " ", "gs://bucket/x", "https://example.org/x", "~nobody-of-that-name/x"],
)  # fmt: skip
def test_what_is_the_users_is_refused_and_untouched(home, output):
    before = snapshot(home.parent)
    for attempt in (make, check_output):
        with pytest.raises(UserError) as caught:
            attempt(output)
        assert caught.value.code.startswith("output.")
        assert "--output" in str(caught.value)
    assert snapshot(home.parent) == before


def test_tilde_is_the_home(home):
    make("~/ds")
    assert read_manifest(home.parent / "home" / "ds").config == {"text": "x"}
    assert not (home / "~").exists()
    assert expand_output("~/ds") == home.parent / "home" / "ds"


def test_failed_work_leaves_the_old_artifact(home):
    make("ds", "old")
    before = snapshot(home)
    with pytest.raises(ZeroDivisionError):
        make("ds", "new", meanwhile=fail)
    assert snapshot(home) == before


def test_own_artifact_is_replaced_with_no_trace(home):
    make("ds", "old")
    before = sorted(os.listdir())
    make("ds", "new")
    assert read_manifest("ds").config == {"text": "new"}
    assert sorted(os.listdir()) == before


def test_artifact_of_another_kind_is_not_replaced(home):
    make("ds", "old")
    with refused("output.other_artifact"):
        make("ds", "new", kind="model")
    assert read_manifest("ds").config == {"text": "old"}


def test_artifact_with_a_file_of_the_users_is_not_replaced(home):
    make("ds", "old")
    Path("ds/notes.txt").write_text("mine")
    with refused("output.foreign_files", "notes.txt"):
        make("ds", "new")
    assert Path("ds/notes.txt").read_text() == "mine"
    Path("ds/notes.txt").rename("ds/.DS_Store")
    make("ds", "new")
    assert read_manifest("ds").config == {"text": "new"}


def test_folder_of_a_file_browsers_bookkeeping_counts_as_empty(home):
    Path("new").mkdir()
    Path("new/.DS_Store").write_bytes(b"\0\0Bud1")
    make("new")
    assert read_manifest("new").config == {"text": "x"}


@pytest.mark.parametrize(
    "inputs", [["folder"], ["folder/notes.txt"], ["file://folder/notes.txt"], ["folder/*.txt"]]
)
@pytest.mark.parametrize("output", ["folder", "folder/../folder", "link"])
def test_folder_of_an_input_is_refused(home, inputs, output):
    before = snapshot(home)
    with pytest.raises(UserError):
        check_output(output, inputs=inputs)
    assert snapshot(home) == before


def test_output_over_around_or_inside_an_input_artifact_is_refused(home):
    make("runs/ds", "old")
    for output in ("runs/ds", "runs", "runs/ds/model"):
        with refused("output.is_input"):
            make(output, kind="dataset", sources=["runs/ds"])
    assert read_manifest("runs/ds").config == {"text": "old"}
    make("runs/other", sources=["runs/ds", None, "gs://bucket/x"])


def test_the_users_folder_that_appears_during_the_work_is_kept_and_so_is_the_work(home):
    def meanwhile() -> None:
        Path("ds").mkdir()
        Path("ds/notes.txt").write_text("mine")

    with refused("output.kept_elsewhere", "ds-1"):
        make("ds", meanwhile=meanwhile)
    assert Path("ds/notes.txt").read_text() == "mine"
    assert read_manifest("ds-1").kind == "dataset"


def test_unwritable_place_is_refused_before_work(home):
    Path("locked").mkdir(mode=0o555)
    program = (
        "from latentrec.storage.output_checks import check_output\n"
        "from latentrec.core import UserError\n"
        "try: check_output('locked/sub/m')\n"
        "except UserError as error: print(error.code, error)\n"
    )
    command = [sys.executable, "-c", program]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write everywhere and setpriv is not here")
        command = ["setpriv", "--bounding-set=-dac_override", *command]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.startswith("output.not_writable ")
    assert "locked" in run.stdout
    assert os.listdir("locked") == []


def test_two_that_write_one_output_do_not_mix(home):
    first, second = OutputFolder("ds", kind="dataset"), OutputFolder("ds", kind="dataset")
    (first.path / "one").write_text("1")
    (second.path / "two").write_text("2")
    first.commit()
    with refused("output.kept_elsewhere"):
        second.commit()
    assert os.listdir("ds") == ["one"]
    assert os.listdir("ds-1") == ["two"]


def test_leftovers_of_a_killed_attempt_are_removed_and_those_of_a_living_one_are_not(home):
    program = (
        "import os, signal\n"
        "from latentrec.storage.output import OutputFolder\n"
        "folder = OutputFolder('ds'); (folder.path / 'x').write_text('x')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], check=False)
    assert run.returncode == -signal.SIGKILL
    (dead,) = Path().glob(".ds.latentrec-*")
    living = OutputFolder("ds")
    assert not dead.exists()
    make("ds")
    assert living.path.is_dir()
    living.discard()
    assert not list(Path().glob(".ds.*"))


def test_death_between_the_two_renames_is_mended(home):
    make("ds", "old")
    holder = Path(".ds.latentrec-replaced-abc")
    holder.mkdir()
    Path("ds").rename(holder / "old")
    with pytest.raises(ZeroDivisionError):
        make("ds", "new", meanwhile=fail)
    assert read_manifest("ds").config == {"text": "old"}
    assert not holder.exists()


def test_half_moved_artifact_on_a_mount_point_is_known_as_ours(home):
    """Killed while files were moved into a mount point: the list of the move says what is ours."""
    Path("ds").mkdir()
    Path("ds/a.parquet").write_text("half")
    Path("ds/.latentrec-replacing").write_text(json.dumps({"kind": "dataset", "names": ["a.parquet"]}))
    make("ds", "new")
    assert read_manifest("ds").config == {"text": "new"}
    assert sorted(os.listdir("ds")) == ["a.parquet", "manifest.json"]


@pytest.mark.parametrize(
    "output", ["file.txt", "link", "dangling", "folder", ".", "file.txt/x", "missing/../file.txt"]
)
def test_output_file_of_the_users_is_refused(home, output):
    before = snapshot(home)
    with pytest.raises(UserError) as caught:
        check_output_file(output, lambda path: False)
    assert caught.value.code.startswith("output.")
    assert "--output" in str(caught.value)
    assert snapshot(home) == before


def test_output_file_of_ours_or_an_empty_one_is_replaced(home):
    Path("empty.jsonl").touch()
    assert check_output_file("empty.jsonl", lambda path: False) == home / "empty.jsonl"
    assert check_output_file("file.txt", lambda path: path.read_text() == "hello") == home / "file.txt"
    with refused("output.is_input"):
        check_output_file("file.txt", lambda path: True, inputs=["file.txt"])
