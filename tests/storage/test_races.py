"""Sixty-four writers race: create-once has one winner, compare-and-swap loses no increment."""

import multiprocessing
import threading

import pytest

from latentrec.storage import ABSENT, PreconditionFailed, store_for

WRITERS = 64


@pytest.fixture(params=["local", "gs"])
def uri(request, tmp_path) -> str:
    if request.param == "local":
        return str(tmp_path / "lock.json")
    request.getfixturevalue("gcs_server")
    return "gs://bucket/lock.json"


def run_threads(action) -> list:
    barrier = threading.Barrier(WRITERS)
    results: list = [None] * WRITERS

    def body(number: int) -> None:
        barrier.wait()
        results[number] = action(number)

    threads = [threading.Thread(target=body, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def create(uri: str, number: int) -> bool:
    try:
        store_for(uri).write_bytes(uri, f"writer {number}".encode(), if_version=ABSENT)
    except PreconditionFailed:
        return False
    return True


def test_one_of_sixty_four_writers_creates_the_object(uri):
    won = run_threads(lambda number: create(uri, number))
    assert won.count(True) == 1
    assert store_for(uri).read_bytes(uri) == f"writer {won.index(True)}".encode()


def test_one_of_sixty_four_processes_creates_the_file(tmp_path):
    uri = str(tmp_path / "lock.json")
    context = multiprocessing.get_context("fork")
    with context.Pool(WRITERS) as pool:
        won = pool.starmap(create, [(uri, number) for number in range(WRITERS)], chunksize=1)
    assert won.count(True) == 1
    assert store_for(uri).read_bytes(uri) == f"writer {won.index(True)}".encode()


def test_compare_and_swap_loses_no_increment(uri):
    store = store_for(uri)
    store.write_bytes(uri, b"0")

    def increment(_: int) -> None:
        while True:
            info = store.stat(uri)
            value = int(store.read_bytes(uri)) + 1
            try:
                store.write_bytes(uri, str(value).encode(), if_version=info.version)
            except PreconditionFailed:
                continue
            return

    run_threads(increment)
    assert int(store.read_bytes(uri)) == WRITERS


def test_writer_whose_answers_are_lost_still_knows_that_it_won(gcs_server):
    gcs_server.fail("lost_answer", method="POST", path="upload", times=2)
    assert create("gs://bucket/lock.json", 1)
    assert not create("gs://bucket/lock.json", 1)


def test_delete_under_a_precondition_spares_a_newer_version(uri):
    store = store_for(uri)
    old = store.write_bytes(uri, b"old").version
    store.write_bytes(uri, b"new")
    with pytest.raises(PreconditionFailed):
        store.delete(uri, if_version=old)
    assert store.read_bytes(uri) == b"new"
    store.delete(uri, if_version=store.stat(uri).version)
    assert store.stat(uri) is None
    store.delete(uri)
