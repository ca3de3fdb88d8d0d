"""Garbage collection: removes what no index names, spares what may be in a save, changes nothing when dry."""

import time

import pytest

from latentrec import cli
from latentrec.storage import CheckpointStore, join, store_for
from latentrec.storage.checkpoint_garbage import find_checkpoint_garbage, remove_checkpoint_garbage, scan

DAY = 86_400


@pytest.fixture(params=["local", "gs"])
def root(request, tmp_path) -> str:
    if request.param == "local":
        return str(tmp_path / "checkpoints")
    request.getfixturevalue("gcs_server")
    return "gs://bucket/checkpoints"


@pytest.fixture
def work(root, tmp_path) -> CheckpointStore:
    store = CheckpointStore.for_work(root, step="sft", config={}, dataset="d", parent=None)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "model").write_bytes(b"x" * 1000)
    store.save(tmp_path / "state", 1, metadata={})
    return store


def names(root: str) -> set[str]:
    return {info.uri.rpartition("sft-")[2].partition("/")[2] for info in store_for(root).list(root + "/")}


def leave_behind(store: CheckpointStore, token: int) -> str:
    """Files of a save that was killed before its index."""
    uri = join(store.uri, f"0000000009-t{token}-0123456789ab", "model")
    store_for(uri).write_bytes(uri, b"y" * 500)
    return uri


def collect(root: str, **ages) -> list[str]:
    garbage = find_checkpoint_garbage(scan(root), **{"older_than_s": DAY, **ages})
    remove_checkpoint_garbage(garbage)
    return [piece.info.uri for piece in garbage]


def test_nothing_that_an_index_names_is_garbage(root, work):
    assert collect(root, older_than_s=0) == []
    assert work.latest().step == 1


def test_unreferenced_file_of_the_running_attempt_is_kept_while_young(root, work):
    leave_behind(work, token=1)
    assert collect(root) == []


def test_unreferenced_file_of_the_running_attempt_goes_when_old(root, work):
    uri = leave_behind(work, token=1)
    time.sleep(0.01)
    assert collect(root, older_than_s=0) == [uri]
    assert work.latest().step == 1


def test_file_of_a_replaced_attempt_goes_at_once(root, work):
    uri = leave_behind(work, token=1)
    successor = CheckpointStore.for_work(root, step="sft", config={}, dataset="d", parent=None)
    assert collect(root) == [uri]
    assert successor.latest().step == 1


def test_unused_work_goes_whole(root, work):
    time.sleep(0.01)
    assert len(collect(root, unused_for_s=0)) == 2
    assert list(store_for(root).list(root + "/")) == []


def test_work_taken_up_again_between_scan_and_removal_is_spared(root, work):
    time.sleep(0.01)
    garbage = find_checkpoint_garbage(scan(root), older_than_s=DAY, unused_for_s=0)
    successor = CheckpointStore.for_work(root, step="sft", config={}, dataset="d", parent=None)
    assert remove_checkpoint_garbage(garbage) == 0
    assert successor.latest().step == 1


def test_files_that_no_checkpoint_store_wrote_are_left_alone(root, work):
    uri = join(root, "notes", "readme.txt")
    store_for(uri).write_bytes(uri, b"mine")
    assert collect(root, older_than_s=0, unused_for_s=None) == []
    assert store_for(uri).read_bytes(uri) == b"mine"


def test_parts_of_a_killed_large_upload_are_garbage(gcs_server):
    root = "gs://bucket/checkpoints"
    store = CheckpointStore.for_work(root, step="sft", config={}, dataset="d", parent=None)
    uri = leave_behind(store, token=1)
    part = f"{uri}.parts-0123456789ab/00"
    store_for(part).write_bytes(part, b"z")
    assert part not in {info.uri for info in store_for(root).list(root)}
    CheckpointStore.for_work(root, step="sft", config={}, dataset="d", parent=None)
    assert set(collect(root)) == {uri, part}


def test_command_shows_first_and_removes_only_when_asked(root, work, capsys):
    leave_behind(work, token=0)
    cli.main(["storage", "gc", root])
    assert "dry run: 1 files, 500 B would be removed" in capsys.readouterr().out
    assert len(names(root)) == 3
    cli.main(["storage", "gc", root, "--delete"])
    assert "removed 500 B in 1 files" in capsys.readouterr().out
    assert len(names(root)) == 2


def test_command_lists_work_and_checkpoints(root, work, tmp_path, capsys):
    work.save(tmp_path / "state", 20, metadata={}, best=True)
    cli.main(["storage", "list", root])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{work.uri}  (2.0 KB; 1 attempts")
    assert lines[2].split()[:2] == ["step", "20"]
    assert lines[2].endswith("best")
    assert lines[-1] == "1 pieces of work, 2.0 KB"


def test_command_on_a_folder_that_is_not_there_is_an_input_error(tmp_path, refused_command):
    refused_command(["storage", "gc", str(tmp_path / "absent")], "storage.not_found", "absent")
