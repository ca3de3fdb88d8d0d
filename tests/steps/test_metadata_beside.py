"""Metadata that lies beside the reviews is found by the names that the public editions give it."""

import pytest

from latentrec.steps.metadata_beside import metadata_beside


@pytest.mark.parametrize(
    ("reviews", "metadata"),
    [
        ("reviews.json", "meta.json"),
        ("reviews_Books.json.gz", "meta_Books.json.gz"),
        ("Gift_Cards.jsonl.gz", "meta_Gift_Cards.jsonl.gz"),
    ],
)
def test_it_is_found_by_the_names_of_the_editions(tmp_path, reviews, metadata):
    (tmp_path / reviews).touch()
    (tmp_path / metadata).touch()
    assert metadata_beside([f"{tmp_path}/{reviews}"])[0] == (f"{tmp_path}/{metadata}",)


def test_without_one_of_two_there_is_nothing_and_what_was_tried_is_said(tmp_path):
    (tmp_path / "meta_a.json").touch()
    found, tried = metadata_beside([f"{tmp_path}/a.json", f"{tmp_path}/b.json"])
    assert found == ()
    assert tried == (f"{tmp_path}/meta_a.json", f"{tmp_path}/meta_b.json")


def test_object_storage_is_asked_too(gcs_server):
    from latentrec.storage import store_for

    store_for("gs://bucket/x").write_bytes("gs://bucket/in/meta.json", b"{}")
    assert metadata_beside(["gs://bucket/in/reviews.json"])[0] == ("gs://bucket/in/meta.json",)


@pytest.mark.parametrize("location", ["gs://bucket/in/", "gs://bucket/in/*.json"])
def test_a_folder_or_a_pattern_has_no_neighbor(location):
    assert metadata_beside([location]) == ((), ())
