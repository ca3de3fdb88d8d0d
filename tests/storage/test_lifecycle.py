"""Rules by which a bucket deletes by itself: those that reach a location, and no others."""

import pytest

from latentrec.storage.lifecycle import google_rules
from latentrec.storage.uri import store_for
from tests.fakes import gcs_server as gcs_fake


def delete(**condition):
    return {"action": {"type": "Delete"}, "condition": condition}


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        (delete(age=30), ["every object after 30 days"]),
        (delete(age=30, matchesPrefix=["other/", "runs/"]), ["objects below 'runs/' after 30 days"]),
        (
            delete(age=7, matchesPrefix=["runs/latentr3/old/"]),
            ["objects below 'runs/latentr3/old/' after 7 days"],
        ),
        (delete(age=30, matchesPrefix=["run-logs/"]), []),
        (delete(createdBefore="2026-01-01"), ["every object from 2026-01-01 on"]),
        (delete(daysSinceCustomTime=3), ["every object under a condition"]),
        (delete(age=1, isLive=False), []),
        (delete(numNewerVersions=3), []),
        (delete(daysSinceNoncurrentTime=3), []),
        ({"action": {"type": "SetStorageClass"}, "condition": {"age": 1}}, []),
        ({"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": 1}}, []),
    ],
)
def test_google_s_rules(rule, found):
    assert google_rules([rule], "runs/latentr3") == found


def test_a_root_that_is_the_whole_bucket_is_reached_by_every_rule():
    assert google_rules([delete(age=1, matchesPrefix=["a/"])], "") == ["objects below 'a/' after 1 days"]


def test_a_folder_of_this_machine_has_none(tmp_path):
    assert store_for(str(tmp_path)).deletion_rules(str(tmp_path)) == []


def test_google_s_store_asks_the_bucket(gcs_server, monkeypatch):
    assert store_for("gs://bucket/x").deletion_rules("gs://bucket/x") == []
    with_rule = {"lifecycle": {"rule": [delete(age=30)]}}
    plain = gcs_fake._bucket_resource
    monkeypatch.setattr(gcs_fake, "_bucket_resource", lambda name: plain(name) | with_rule)
    assert store_for("gs://bucket/x").deletion_rules("gs://bucket/x") == ["every object after 30 days"]
    assert store_for("gs://nowhere/x").deletion_rules("gs://nowhere/x") is None
