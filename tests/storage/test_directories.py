"""Whole artifact directories go up and come down, manifest last."""

import pytest

from latentrec.storage import (
    StorageError,
    download_directory,
    join,
    read_manifest,
    store_for,
    upload_directory,
)
from tests.errors import refused
from tests.storage.artifacts import make_artifact


def test_directory_comes_back_as_it_went(place, tmp_path):
    source = make_artifact(tmp_path / "source", "x")
    upload_directory(source, place)
    manifest = download_directory(place, tmp_path / "copy")
    assert manifest == read_manifest(tmp_path / "copy", "dataset")
    assert (tmp_path / "copy" / "sub" / "b.parquet").read_text() == "x sub/b.parquet"


def test_manifest_is_the_last_write(gcs_server, tmp_path):
    upload_directory(make_artifact(tmp_path / "source", "x"), "gs://bucket/place")
    generations = {info.uri: int(info.version) for info in store_for("gs://").list("gs://bucket/place/")}
    assert max(generations, key=generations.get) == "gs://bucket/place/manifest.json"


def test_finished_artifact_is_not_overwritten_by_another(place, tmp_path):
    upload_directory(make_artifact(tmp_path / "one", "one"), place)
    upload_directory(tmp_path / "one", place)
    with refused("output.other_artifact", place):
        upload_directory(make_artifact(tmp_path / "two", "two"), place)
    assert download_directory(place, tmp_path / "copy").config == {"text": "one"}
    upload_directory(tmp_path / "two", place, replace=True)
    assert download_directory(place, tmp_path / "copy").config == {"text": "two"}


def test_unfinished_directory_is_refused(place, tmp_path):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "a").write_text("x")
    with refused("manifest.not_found", "half"):
        upload_directory(tmp_path / "half", place)
    with refused("manifest.not_found", place):
        download_directory(place, tmp_path / "copy")


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_damaged_file_is_refused_and_what_stood_there_stays(place, tmp_path, damage):
    upload_directory(make_artifact(tmp_path / "source", "x"), place)
    uri = join(place, "a.parquet")
    store_for(uri).delete(uri) if damage == "missing" else store_for(uri).write_bytes(uri, b"y a.parquet")
    make_artifact(tmp_path / "copy", "before")
    with refused("manifest.changed_files", "a.parquet", error=StorageError):
        download_directory(place, tmp_path / "copy")
    assert read_manifest(tmp_path / "copy").config == {"text": "before"}
