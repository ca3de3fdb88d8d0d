"""Preflight's own page, and its warnings of buckets that delete by themselves."""

from types import SimpleNamespace

import pytest

from latentrec.steps import preflight_report
from latentrec.steps.preflight import PreflightResult
from latentrec.steps.preflight_report import describe, lifecycle_warnings, preflight_markdown
from latentrec.steps.run_summary import render_summary
from latentrec.steps.status import StepStatus
from latentrec.steps.verdict import decide


@pytest.fixture
def rules(monkeypatch):
    """Rules by root; every other root has none that are known."""
    known = {}
    store = SimpleNamespace(deletion_rules=known.get)
    monkeypatch.setattr(preflight_report, "store_for", lambda uri: store)
    monkeypatch.setenv("LATENTREC_CHECKPOINT_ROOT", "gs://b/checkpoints")
    return known


def test_a_rule_on_the_pipeline_root_is_warned_of_and_says_what_it_breaks(rules):
    rules["gs://b/v2/x"] = ["every object after 30 days"]
    (warning,) = lifecycle_warnings("gs://b/v2/x")
    assert warning.startswith("the pipeline root (gs://b/v2/x): a lifecycle rule of the bucket deletes every")
    assert "KFP's cache" in warning


def test_a_rule_on_the_checkpoints_is_warned_of(rules):
    rules["gs://b/checkpoints"] = ["objects below 'checkpoints/' after 1 days"]
    (warning,) = lifecycle_warnings("gs://b/v2/x")
    assert warning.startswith("LATENTREC_CHECKPOINT_ROOT (gs://b/checkpoints)")


def test_rules_that_cannot_be_read_are_no_warning(rules):
    assert lifecycle_warnings("gs://b/v2/x") == []


def test_the_page_holds_warnings_sizes_and_what_is_set(rules, tmp_path):
    rules["gs://b/v2/x"] = ["every object after 30 days"]
    checked = PreflightResult(
        configs={"data_prep": {"k_core": 5}, "sft": {}},
        details={"model_name": "latentr3-a|b"},
        stage_2="title_objective",
    )
    page = SimpleNamespace(uri="gs://b/v2/x", path=str(tmp_path / "page"))
    describe({"system": "latentr3"}, checked, page)
    text = (tmp_path / "page").read_text()
    assert text.startswith("# latentr3: every check passed\n")
    assert "**Warning:** the pipeline root" in text
    assert "| data\\_prep | k\\_core | `5` |" in text
    assert "| registered as | `latentr3-a¦b` |" in text
    assert f"| pods of train | `{checked.sizes['train'].cpu} CPU, {checked.sizes['train'].memory}` |" in text
    assert checked.details["warnings"] == lifecycle_warnings("gs://b/v2/x")


def test_a_page_without_settings_has_no_empty_table():
    assert "## What is set" not in preflight_markdown("lares", PreflightResult())


def test_the_run_s_summary_repeats_the_warning():
    status = StepStatus("preflight", state="succeeded", details={"warnings": ["the pipeline root (gs://b)"]})
    text = render_summary("r", [status], decide("SUCCEEDED", [status], ["preflight"]))
    assert "**Warning:** the pipeline root \\(gs://b\\)" in text
