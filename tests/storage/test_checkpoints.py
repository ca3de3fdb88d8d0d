"""The checkpoint store: atomic, retained, verified, fenced."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from latentrec.storage import CheckpointStore, StaleAttempt, StorageError, join, store_for
from tests.errors import refused


@pytest.fixture(params=["local", "gs"])
def root(request, tmp_path) -> str:
    if request.param == "local":
        return str(tmp_path / "checkpoints")
    request.getfixturevalue("gcs_server")
    return "gs://bucket/checkpoints"


def files_below(uri: str) -> dict[str, bytes]:
    store = store_for(uri)
    return {info.uri.removeprefix(uri + "/"): store.read_bytes(info.uri) for info in store.list(uri + "/")}


def overwrite(uri: str, change) -> None:
    store = store_for(uri)
    data = change(store.read_bytes(uri))
    if data is None:
        store.delete(uri)
    else:
        store.write_bytes(uri, data)


def open_store(root: str, **changes) -> CheckpointStore:
    work = {"step": "sft", "config": {"lr": 0.1}, "dataset": "d1", "parent": None, **changes}
    return CheckpointStore.for_work(root, **work)


class Wrapped:
    """A store with some of its methods replaced."""

    def __init__(self, store, **methods):
        self.__dict__.update(_store=store, **methods)

    def __getattr__(self, name):
        return getattr(self._store, name)


def state(tmp_path: Path, text: str) -> Path:
    directory = tmp_path / "state"
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "sub").mkdir(parents=True)
    (directory / "model.safetensors").write_bytes(text.encode() * 1000)
    (directory / "sub" / "trainer.json").write_text(json.dumps({"state": text}))
    return directory


def content(store: CheckpointStore, info, tmp_path: Path) -> str:
    store.restore(info, tmp_path / "restored")
    trainer = json.loads((tmp_path / "restored" / "sub" / "trainer.json").read_text())["state"]
    assert (tmp_path / "restored" / "model.safetensors").read_bytes() == trainer.encode() * 1000
    return trainer


def test_new_work_has_no_checkpoint(root):
    store = open_store(root)
    assert store.latest() is None
    assert store.best() is None


def test_saved_checkpoint_is_restored_by_the_next_attempt(root, tmp_path):
    open_store(root).save(state(tmp_path, "a"), 100, metadata={"loss": 0.5})
    store = open_store(root)
    info = store.latest()
    assert (info.step, info.metadata) == (100, {"loss": 0.5})
    assert content(store, info, tmp_path) == "a"


@pytest.mark.parametrize(
    "change", [{"step": "grpo"}, {"config": {"lr": 0.2}}, {"dataset": "d2"}, {"parent": "m1"}]
)
def test_different_work_never_collides(root, tmp_path, change):
    open_store(root).save(state(tmp_path, "a"), 100, metadata={})
    assert open_store(root, **change).latest() is None


def test_keeps_the_last_and_the_best(root, tmp_path):
    store = open_store(root)
    for step in range(1, 7):
        store.save(state(tmp_path, str(step)), step, metadata={}, best=step in (1, 3))
    assert (store.latest().step, store.best().step) == (6, 3)
    kept = {name.split("-")[0] for name in files_below(store.uri)} - {"index.json"}
    assert kept == {f"{step:010d}" for step in (3, 5, 6)}


def test_restore_replaces_an_earlier_checkpoint_and_nothing_else(root, tmp_path):
    store = open_store(root)
    store.save(state(tmp_path, "a"), 1, metadata={})
    assert content(store, store.latest(), tmp_path) == "a"
    store.save(state(tmp_path, "b"), 2, metadata={})
    assert content(store, store.latest(), tmp_path) == "b"
    (tmp_path / "restored" / "notes.txt").write_text("x")
    with refused("output.foreign_files", "notes.txt"):
        store.restore(store.latest(), tmp_path / "restored")
    assert (tmp_path / "restored" / "notes.txt").read_text() == "x"


def missing(data: bytes) -> None:
    return None


def truncated(data: bytes) -> bytes:
    return data[:-1]


def one_bit_flipped(data: bytes) -> bytes:
    return data[:100] + bytes([data[100] ^ 1]) + data[101:]


@pytest.mark.parametrize("damage", [missing, truncated, one_bit_flipped])
def test_torn_checkpoint_is_passed_over_for_the_one_before(root, tmp_path, damage):
    store = open_store(root)
    store.save(state(tmp_path, "a"), 1, metadata={})
    store.save(state(tmp_path, "b"), 2, metadata={}, best=True)
    overwrite(join(store.latest().uri, "model.safetensors"), damage)
    assert store.latest().step == 1
    assert store.best() is None
    assert content(store, store.latest(), tmp_path) == "a"


def test_restore_refuses_a_checkpoint_damaged_after_it_was_chosen(root, tmp_path):
    store = open_store(root)
    store.save(state(tmp_path, "a"), 1, metadata={})
    info = store.latest()
    overwrite(join(info.uri, "model.safetensors"), one_bit_flipped)
    with refused("checkpoint.damaged", "model.safetensors", error=StorageError):
        store.restore(info, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


def test_stale_attempt_cannot_overwrite_a_newer_checkpoint(root, tmp_path):
    old = open_store(root)
    old.save(state(tmp_path, "old"), 1, metadata={})
    new = open_store(root)
    assert new.token == old.token + 1
    new.save(state(tmp_path, "new"), 2, metadata={})
    with pytest.raises(StaleAttempt):
        old.save(state(tmp_path, "late"), 3, metadata={})
    assert content(new, new.latest(), tmp_path) == "new"


def test_attempt_replaced_during_its_upload_cannot_publish(root, tmp_path):
    successor: list[CheckpointStore] = []
    old = open_store(root)

    def upload_and_be_replaced(path, uri, *, if_version=None):
        successor.append(open_store(root))
        return store_for(uri).upload_file(path, uri, if_version=if_version)

    old._store = Wrapped(old._store, upload_file=upload_and_be_replaced)
    with pytest.raises(StaleAttempt):
        old.save(state(tmp_path, "late"), 1, metadata={})
    assert successor[0].latest() is None


def in_run(monkeypatch, run: str, root: str, **changes) -> CheckpointStore:
    monkeypatch.setenv("LATENTREC_RUN_ID", run)
    return open_store(root, **changes)


def test_two_runs_of_the_same_work_both_go_on(root, tmp_path, monkeypatch, caplog):
    """The later one resumes from what is there; the earlier one moves, with the best, and is told so."""
    first = in_run(monkeypatch, "run-a", root)
    first.save(state(tmp_path, "best"), 1, metadata={"loss": 0.5}, best=True)
    first.save(state(tmp_path, "two"), 2, metadata={})
    second = in_run(monkeypatch, "run-b", root)
    assert second.latest().step == 2
    first.save(state(tmp_path, "three of a"), 3, metadata={})
    second.save(state(tmp_path, "three of b"), 3, metadata={})
    assert "run-b" in caplog.text
    assert first.uri in caplog.text
    assert first.uri != second.uri
    assert second.uri == open_store(root, acquire=False).uri
    assert content(first, first.latest(), tmp_path) == "three of a"
    assert content(first, first.best(), tmp_path) == "best"
    assert first.best().metadata == {"loss": 0.5}
    assert content(second, second.latest(), tmp_path) == "three of b"
    assert content(second, second.best(), tmp_path) == "best"
    first.clear()
    assert content(second, second.latest(), tmp_path) == "three of b"


def test_other_run_may_take_over_during_the_upload(root, tmp_path, monkeypatch):
    successor: list[CheckpointStore] = []
    first = in_run(monkeypatch, "run-a", root)
    working = first._store

    def upload_and_be_replaced(path, uri, *, if_version=None):
        if not successor:
            successor.append(in_run(monkeypatch, "run-b", root))
        return working.upload_file(path, uri, if_version=if_version)

    first._store = Wrapped(working, upload_file=upload_and_be_replaced)
    first.save(state(tmp_path, "a"), 1, metadata={})
    assert content(first, first.latest(), tmp_path) == "a"
    assert successor[0].latest() is None


def test_retry_and_readers_of_a_run_find_the_checkpoints_it_moved_to(root, tmp_path, monkeypatch):
    first = in_run(monkeypatch, "run-a", root)
    reader = in_run(monkeypatch, "run-a", root, acquire=False)
    second = in_run(monkeypatch, "run-b", root)
    second.save(state(tmp_path, "b"), 1, metadata={})
    first.save(state(tmp_path, "a"), 2, metadata={})
    assert content(reader, reader.latest(), tmp_path) == "a"
    retry = in_run(monkeypatch, "run-a", root)
    assert content(retry, retry.latest(), tmp_path) == "a"
    with pytest.raises(StaleAttempt):  # a lost pod of the same run that comes back
        first.save(state(tmp_path, "late"), 3, metadata={})
    second.save(state(tmp_path, "b2"), 2, metadata={})
    assert content(second, second.latest(), tmp_path) == "b2"


@pytest.mark.parametrize("owner_saved_it", [True, False])
def test_best_that_the_new_owner_dropped(root, tmp_path, monkeypatch, owner_saved_it):
    """Where the owner saved the same step its copy is as good; else the result would differ: stop."""
    first = in_run(monkeypatch, "run-a", root)
    first.save(state(tmp_path, "one"), 1, metadata={}, best=True)
    second = in_run(monkeypatch, "run-b", root)
    for step in (1, 2) if owner_saved_it else (2, 3):
        second.save(state(tmp_path, "one"), step, metadata={}, best=True)
    if owner_saved_it:
        first.save(state(tmp_path, "two"), 2, metadata={})
        assert (first.best().step, content(first, first.best(), tmp_path)) == (1, "one")
    else:
        with pytest.raises(StaleAttempt):
            first.save(state(tmp_path, "two"), 2, metadata={})
        assert [one["step"] for one in second._read_index().checkpoints] == [2, 3]


def test_index_of_before_runs_were_named_is_read(root, tmp_path, monkeypatch):
    store = open_store(root)
    store.save(state(tmp_path, "a"), 1, metadata={})

    def without_run(data):
        body = json.loads(data)
        assert body.pop("run") == ""
        return json.dumps(body).encode()

    overwrite(join(store.uri, "index.json"), without_run)
    assert content(store, in_run(monkeypatch, "run-b", root).latest(), tmp_path) == "a"
    overwrite(join(store.uri, "index.json"), lambda data: data.replace(b'"run-b"', b"7"))
    with refused("checkpoint.bad_index", "'run'"):
        open_store(root)


def test_attempt_goes_on_when_the_answer_to_its_own_swap_was_lost(root, tmp_path):
    def write_without_an_answer(uri, data, *, if_version=None):
        working.write_bytes(uri, data, if_version=if_version)
        raise StorageError("no answer")

    store = open_store(root)
    working = store._store
    store._store = Wrapped(working, write_bytes=write_without_an_answer)
    with pytest.raises(StorageError):
        store.save(state(tmp_path, "a"), 1, metadata={})
    store._store = working
    assert store.latest().step == 1
    store.save(state(tmp_path, "b"), 2, metadata={})
    assert [entry["step"] for entry in store._index.checkpoints] == [1, 2]


def test_reader_does_not_shut_out_the_writer(root, tmp_path):
    writer = open_store(root)
    reader = open_store(root, acquire=False)
    writer.save(state(tmp_path, "a"), 1, metadata={})
    assert reader.latest().step == 1
    with refused("checkpoint.read_only"):
        reader.save(state(tmp_path, "b"), 2, metadata={})


def test_sixty_four_attempts_at_once_get_sixty_four_tokens(root):
    tokens: list[int] = []
    threads = [threading.Thread(target=lambda: tokens.append(open_store(root).token)) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(tokens) == list(range(1, 65))


def test_clear_removes_everything_but_the_token(root, tmp_path):
    store = open_store(root)
    store.save(state(tmp_path, "a"), 1, metadata={}, best=True)
    store.clear()
    assert store.latest() is None
    assert list(files_below(store.uri)) == ["index.json"]
    assert open_store(root).token == 2


def test_root_that_cannot_be_written_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with refused("checkpoint.not_writable"):
        open_store(str(tmp_path / "file"))


def test_index_that_is_not_one_says_what_to_do(root):
    store = open_store(root)
    overwrite(join(store.uri, "index.json"), lambda data: b"{")
    with refused("checkpoint.bad_index"):
        open_store(root)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_full_disk_is_one_clear_error_and_the_old_checkpoint_is_intact(tmp_path, code):
    store = open_store(str(tmp_path / "checkpoints"))
    store.save(state(tmp_path, "a"), 1, metadata={})

    def no_space(path, uri, *, if_version=None):
        raise OSError(code, os.strerror(code))

    working = store._store
    store._store = Wrapped(working, upload_file=no_space)
    with refused("checkpoint.not_writable", "step 2", os.strerror(code), error=StorageError):
        store.save(state(tmp_path, "b"), 2, metadata={})
    store._store = working
    assert content(store, store.latest(), tmp_path) == "a"
    store.save(state(tmp_path, "c"), 3, metadata={})
    assert content(store, store.latest(), tmp_path) == "c"


def test_file_size_limit_of_the_system_leaves_the_old_checkpoint_and_no_litter(tmp_path):
    """The kernel itself refuses to write on: RLIMIT_FSIZE, as a full disk does."""
    script = """
import resource, signal, sys
from pathlib import Path
from latentrec.steps.status import exit_code_on_error
from latentrec.storage import CheckpointStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
root, directory = sys.argv[1:]
with exit_code_on_error():
    store = CheckpointStore.for_work(root, step="sft", config={"lr": 0.1}, dataset="d1", parent=None)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
    store.save(Path(directory), 2, metadata={})
"""
    root = str(tmp_path / "checkpoints")
    store = open_store(root)
    store.save(state(tmp_path, "a"), 1, metadata={})
    before = files_below(store.uri)
    command = [sys.executable, "-c", script, root, str(state(tmp_path, "b"))]
    environment = {**os.environ, "LATENTREC_LOG_FORMAT": "json"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 1
    (line,) = map(json.loads, result.stderr.splitlines())
    assert line["error_code"] == "checkpoint.not_writable"
    assert "step 2" in line["message"]
    after = files_below(store.uri)
    assert {name: data for name, data in after.items() if name != "index.json"} == {
        name: data for name, data in before.items() if name != "index.json"
    }
    assert content(store, open_store(root).latest(), tmp_path) == "a"
