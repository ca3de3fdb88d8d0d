"""One message to a webhook when a run fails, is terminated or promotes: seen by a server that records it."""

from __future__ import annotations

import json
import logging
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from latentrec.steps import notify
from latentrec.steps.run_summary import write_run_summary

STEPS = ["preflight", "data_prep", "sft", "evaluate", "register"]
SECRET = "T0123ABC/B0456DEF/s3cretOfTheChannel"


class Webhook:
    """Records requests and answers as told: ``answers`` is used up, the last one stays."""

    def __init__(self):
        self.seen, self.answers, self.silent = [], [200], threading.Event()
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                webhook.seen.append((self.path, self.headers["Content-Type"], json.loads(body)))
                answer = webhook.answers.pop(0) if len(webhook.answers) > 1 else webhook.answers[0]
                if answer == "silence":
                    webhook.silent.wait(10)
                    return
                self.send_response(answer)
                if answer == 302:
                    self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/{SECRET}"

    def close(self):
        self.silent.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def webhook(monkeypatch, tmp_path):
    found = Webhook()
    for name in ("HTTP_PROXY", "http_proxy", "MLFLOW_TRACKING_URI", "LATENTREC_NOTIFY_ON"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "LATENTREC_NOTIFY_URL": found.url,
        "LATENTREC_STATUS_ROOT": str(tmp_path / "status"),
        "LATENTREC_RUN_ID": "run-1",
        "LATENTREC_PIPELINE": "latentr3",
        "LATENTREC_KFP_UI": "https://kfp.example",
        "LATENTREC_MLFLOW_UI": "https://mlflow.example",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(notify, "PAUSE_S", 0.01)
    yield found
    found.close()


def summarize(tmp_path, state, **statuses):
    """Write the summary of a run whose steps left these statuses."""
    folder = tmp_path / "status" / "run-1"
    folder.mkdir(parents=True, exist_ok=True)
    for number, (step, status) in enumerate(statuses.items()):
        whole = {
            "step": step,
            "state": "succeeded",
            "started": 10.0 + number,
            "ended": 20.0 + number,
        } | status
        (folder / f"{step}.json").write_text(json.dumps(whole))
    return write_run_summary(tmp_path / "summary.md", steps=STEPS, state=state)


def registered(promoted):
    verdict = "better than the champion" if promoted else "below popularity <0.1>"
    details = {"registered": "models:/m/7", "served_as": "models:/m@champion", "promoted": promoted}
    return {"details": details | {"verdict": verdict}}


@pytest.fixture(autouse=True)
def _heard(caplog):
    caplog.set_level("INFO", "latentrec")


def test_a_failed_run_names_its_step_reason_and_page(webhook, tmp_path, caplog):
    failed = {"state": "failed", "error": "no space on <device> & elsewhere"}
    summarize(tmp_path, "FAILED", preflight={"details": {"mlflow_parent_run_id": "abc"}}, sft=failed)
    ((path, kind, body),) = webhook.seen
    assert (path, kind) == (f"/services/{SECRET}", "application/json")
    assert body["text"].splitlines() == [
        "*latentr3* failed (run run-1)",
        "• *sft* failed: no space on &lt;device&gt; &amp; elsewhere",
        "KFP run: https://kfp.example/#/runs/details/run-1",
        "MLflow run: https://mlflow.example/#/runs/abc",
    ]
    fields = body["latentrec"]
    assert (fields["event"], fields["pipeline"], fields["run_id"]) == ("failed", "latentr3", "run-1")
    assert fields["problems"] == [
        {"step": "sft", "state": "failed", "reason": "no space on <device> & elsewhere"}
    ]
    assert fields["links"]["KFP run"] == "https://kfp.example/#/runs/details/run-1"
    assert "failed sent to 127.0.0.1" in caplog.text


def test_a_terminated_run_is_told_as_such(webhook, tmp_path):
    summarize(tmp_path, "CANCELED", preflight={}, sft={"state": "running", "ended": None})
    ((_, _, body),) = webhook.seen
    assert body["text"].startswith("*latentr3* was terminated (run run-1)\n• *sft* unfinished: ")
    assert (body["latentrec"]["event"], body["latentrec"]["outcome"]) == ("terminated", "terminated")


def test_a_promotion_is_told_with_model_and_verdict(webhook, tmp_path):
    summarize(tmp_path, "COMPLETE", preflight={}, register=registered(True))
    ((_, _, body),) = webhook.seen
    assert body["text"].splitlines()[:2] == [
        "*latentr3* promoted a model (run run-1)",
        "models:/m/7: better than the champion",
    ]
    assert (body["latentrec"]["event"], body["latentrec"]["model"]) == ("promoted", "models:/m/7")
    assert body["latentrec"]["gate"] == "better than the champion"


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("", []),
        ("succeeded", ["succeeded"]),
        ("failed, succeeded", ["succeeded"]),
        ("failed", []),
        ("rubbish", []),
    ],
)
def test_a_success_without_promotion_is_told_only_where_that_is_asked_for(
    webhook, tmp_path, monkeypatch, wanted, told
):
    monkeypatch.setenv("LATENTREC_NOTIFY_ON", wanted)
    summarize(tmp_path, "COMPLETE", preflight={}, register=registered(False))
    assert [body["latentrec"]["event"] for _, _, body in webhook.seen] == told


@pytest.mark.parametrize(
    ("answers", "requests", "said"),
    [
        ([503, 200], 2, "failed sent to 127.0.0.1"),
        ([503], 2, "failed was not sent to 127.0.0.1 (HTTP 503)"),
        ([404], 1, "failed was not sent to 127.0.0.1 (HTTP 404)"),
        ([302], 1, "failed was not sent to 127.0.0.1 (HTTP 302)"),
        (["silence"], 2, "failed was not sent to 127.0.0.1 (ReadTimeout)"),
    ],
)
def test_a_receiver_that_does_not_take_it_spoils_nothing(
    webhook, tmp_path, monkeypatch, caplog, answers, requests, said
):
    monkeypatch.setattr(notify, "TIMEOUT_S", 0.3)
    webhook.answers = answers
    verdict = summarize(tmp_path, "FAILED", preflight={"state": "failed", "error": "bad"})
    assert not verdict.good
    assert (tmp_path / "summary.md").read_text().startswith("# Run run-1: failed")
    assert len(webhook.seen) == requests
    assert said in caplog.text


@pytest.mark.parametrize("url", ["ftp://x/y", "nonsense", "http://", "http://[::1", "http://127.0.0.1:1/x"])
def test_an_address_that_leads_nowhere_spoils_nothing(webhook, tmp_path, monkeypatch, caplog, url):
    monkeypatch.setenv("LATENTREC_NOTIFY_URL", url)
    summarize(tmp_path, "FAILED", preflight={"state": "failed", "error": "bad"})
    assert webhook.seen == []
    assert "not sent" in caplog.text


@pytest.mark.parametrize("answers", [[200], [503], ["silence"], [302]])
def test_of_the_address_only_the_host_is_ever_shown(webhook, tmp_path, monkeypatch, caplog, answers):
    """Whoever has its path can post: it is a secret."""
    monkeypatch.setattr(notify, "TIMEOUT_S", 0.3)
    webhook.answers = answers
    with caplog.at_level(logging.DEBUG):
        summarize(tmp_path, "FAILED", preflight={"state": "failed", "error": "bad"})
    assert webhook.seen
    assert SECRET.rpartition("/")[2] not in caplog.text
    assert SECRET not in (tmp_path / "summary.md").read_text() + json.dumps(webhook.seen[0][2])


def test_secrets_in_reasons_are_taken_out_of_the_message(webhook, tmp_path):
    error = "gone: https://user:pw@host/reviews?X-Signature=abc123"
    summarize(tmp_path, "FAILED", data_prep={"state": "failed", "error": error})
    told = json.dumps(webhook.seen[0][2])
    assert "abc123" not in told
    assert "pw@" not in told


def test_without_an_address_nothing_is_sent_or_said(webhook, tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("LATENTREC_NOTIFY_URL")
    assert "LATENTREC_NOTIFY_URL" not in os.environ
    summarize(tmp_path, "FAILED", preflight={"state": "failed", "error": "bad"})
    assert webhook.seen == []
    assert "told" not in caplog.text
