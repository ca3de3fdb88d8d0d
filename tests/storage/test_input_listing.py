"""Input files are listed and fingerprinted; an artifact is written whole, for every user."""

import os
import stat

import pytest

from latentrec.storage import (
    input_fingerprint,
    join,
    list_inputs,
    read_manifest,
    store_for,
)
from tests.errors import refused
from tests.storage.artifacts import make_artifact


def fill(place: str) -> None:
    for name in ("part-1.json", "part-2.json", "notes.txt", "_SUCCESS"):
        store_for(place).write_bytes(join(place, name), name.encode())


def test_inputs_are_listed_by_name_folder_and_pattern(place):
    fill(place)
    first, second, notes = (join(place, name) for name in ("part-1.json", "part-2.json", "notes.txt"))
    assert list_inputs(first) == [first]
    assert list_inputs(place + "/") == [notes, first, second]
    assert list_inputs(join(place, "part-*.json")) == [first, second]
    for nothing in (join(place, "absent"), join(place, "absent-*"), join(place, "absent") + "/"):
        with refused("storage.not_found"):
            list_inputs(nothing)


def test_fingerprint_follows_the_content_behind_the_name(place):
    fill(place)
    uri = join(place, "part-1.json")
    before, whole = input_fingerprint(uri), input_fingerprint(place + "/")
    assert input_fingerprint([uri]) == before
    store_for(uri).write_bytes(uri, b"PART-1.json")
    assert input_fingerprint(uri) != before
    assert input_fingerprint(place + "/") != whole
    store_for(uri).write_bytes(join(place, "part-3.json"), b"x")
    assert input_fingerprint(place + "/") != whole


def test_local_fingerprint_does_not_change_with_the_date(tmp_path):
    path = tmp_path / "reviews.json"
    path.write_text("x")
    before = input_fingerprint(str(path))
    os.utime(path, (1, 1))
    assert input_fingerprint(str(path)) == before


def test_empty_output_directory_is_no_obstacle(tmp_path):
    (tmp_path / "out").mkdir()
    make_artifact(tmp_path / "out", "x")
    assert read_manifest(tmp_path / "out").config == {"text": "x"}


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("mounted", ["output", "parent"])
def test_output_on_a_mount(tmp_path, mounted):
    """KFP hands an output whose parent, or which itself, may be a mount."""
    output = tmp_path / "parent" / "out"
    output.mkdir(parents=True)
    mount = output if mounted == "output" else output.parent
    if os.system(f"mount -t tmpfs none {mount}") != 0:
        pytest.skip("mounting is not allowed here")
    try:
        for text in ("one", "two"):
            make_artifact(output, text)
            assert read_manifest(output).config == {"text": text}
            assert sorted(path.name for path in output.iterdir()) == ["a.parquet", "manifest.json", "sub"]
    finally:
        os.system(f"umount {mount}")


def test_files_are_readable_by_the_next_step_whatever_its_user(tmp_path):
    make_artifact(tmp_path / "place", "x")
    mode = (tmp_path / "place" / "a.parquet").stat().st_mode
    assert stat.S_IMODE(mode) == 0o644
