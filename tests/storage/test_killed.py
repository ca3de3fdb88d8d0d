"""kill -9 at every write boundary: a reader sees the old or the new, whole, and the next attempt succeeds."""

import json
import shutil
from pathlib import Path

import pytest

from latentrec.storage import (
    ArtifactWriter,
    CheckpointStore,
    read_manifest,
    store_for,
)
from tests.storage.crashes import killed_everywhere


@pytest.fixture(autouse=True)
def one_transfer_at_a_time(monkeypatch):
    """The boundaries come in the same order each time, so that their numbers name them: no two transfers
    side by side, and no request repeated because a busy machine let a connection time out."""
    monkeypatch.setenv("LATENTREC_STORAGE_WORKERS", "1")
    monkeypatch.setenv("LATENTREC_STORAGE_CONNECT_S", "60")


def make_artifact(output: Path, text: str) -> None:
    with ArtifactWriter(output, "dataset", {"text": text}) as writer:
        (writer.path / "sub").mkdir()
        for name in ("a.parquet", "b.parquet", "sub/c.parquet"):
            (writer.path / name).write_text(f"{text} {name} " * 50)


def text_of(directory: Path) -> str:
    """Which artifact stands there; fails on a mixture."""
    text = read_manifest(directory, "dataset").config["text"]
    for name in ("a.parquet", "b.parquet", "sub/c.parquet"):
        assert (directory / name).read_text() == f"{text} {name} " * 50
    return text


def make_state(directory: Path, text: str) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    (directory / "model.safetensors").write_bytes(text.encode() * 5000)
    (directory / "trainer.json").write_text(json.dumps({"state": text}))
    return directory


def open_store(root: str, **options) -> CheckpointStore:
    return CheckpointStore.for_work(root, step="sft", config={"lr": 1}, dataset="d", parent=None, **options)


def state_of(root: str, scratch: Path) -> tuple[int, str]:
    """What a reader restores; fails on a mixture."""
    reader = open_store(root, acquire=False)
    info = reader.latest()
    reader.restore(info, scratch)
    text = json.loads((scratch / "trainer.json").read_text())["state"]
    assert (scratch / "model.safetensors").read_bytes() == text.encode() * 5000
    return info.step, text


def empty(place: str) -> None:
    if place.startswith("gs://"):
        for info in list(store_for(place).list(place + "/")):
            store_for(place).delete(info.uri)
    else:
        shutil.rmtree(place, ignore_errors=True)


def test_checkpoint_save_killed_anywhere_leaves_the_old_or_the_new(place, tmp_path):
    old, new = make_state(tmp_path / "old", "old"), make_state(tmp_path / "new", "new")
    seen = set()

    def prepare() -> None:
        empty(place)
        open_store(place).save(old, 1, metadata={})

    for _ in killed_everywhere(tmp_path, prepare, lambda: open_store(place).save(new, 2, metadata={})):
        seen.add(state_of(place, tmp_path / "restored"))
        open_store(place).save(new, 3, metadata={})
        assert state_of(place, tmp_path / "restored") == (3, "new")
    assert seen == {(1, "old"), (2, "new")}
    assert state_of(place, tmp_path / "restored") == (2, "new")


def test_restore_killed_anywhere_leaves_no_half_directory(place, tmp_path):
    open_store(place).save(make_state(tmp_path / "state", "new"), 1, metadata={})
    destination = tmp_path / "out" / "destination"
    reader = open_store(place, acquire=False)
    info = reader.latest()

    def prepare() -> None:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        (tmp_path / "out").mkdir()

    for _ in killed_everywhere(
        tmp_path, prepare, lambda: open_store(place, acquire=False).restore(info, destination)
    ):
        if destination.exists():
            assert {path.name for path in destination.iterdir()} == {"model.safetensors", "trainer.json"}
        assert state_of(place, destination) == (1, "new")


def test_dataset_writer_killed_anywhere_leaves_the_old_the_new_or_nothing(tmp_path):
    output, seen = tmp_path / "out" / "dataset", set()

    def prepare() -> None:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        make_artifact(output, "old")

    for _ in killed_everywhere(tmp_path, prepare, lambda: make_artifact(output, "new")):
        seen.add(text_of(output) if output.exists() else None)
        make_artifact(output, "retried")
        assert text_of(output) == "retried"
        assert [path.name for path in output.parent.iterdir()] == ["dataset"]
    assert seen == {"old", None, "new"}
