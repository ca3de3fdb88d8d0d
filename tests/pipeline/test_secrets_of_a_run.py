"""Nothing that a whole `make run` leaves behind or prints holds a secret that it was given."""

import threading

import pytest

from latentrec.cli import main
from latentrec.data import generate_sample
from tests.fakes.web_server import WebServer
from tests.pipeline.runs import make_run

SECRETS = {
    "password of the reviews' address": "hunter2-reviews",
    "signature of the reviews' address": "s3cret-signature",
    "path of the webhook": "T0KEN-webhook",
    "key of a chat endpoint": "sk-planted-key",
    "key of a store": "planted-s3-secret",
    "password of the tracking server": "hunter2-tracking",
}


@pytest.fixture
def server():
    found = WebServer()
    threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


def holding(folder, *texts):
    """(secret, file) of every planted secret below ``folder``, and in what was printed."""
    found = []
    for what, secret in SECRETS.items():
        found += [(what, "printed") for text in texts if secret in text]
        found += [
            (what, str(path.relative_to(folder)))
            for path in folder.rglob("*")
            if (path.is_file() and secret.encode() in path.read_bytes()) or secret in path.name
        ]
    return found


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_planted_secret_is_left_by_a_whole_run(tmp_path, server):
    reviews, metadata = generate_sample(tmp_path / "shop", users=60, items=72, events_per_user=15)
    query = "?X-Amz-Signature=s3cret-signature"
    address = server.url.replace("http://", "http://ann:hunter2-reviews@")
    for name, file in (("reviews.json", reviews), ("meta.json", metadata)):
        server.files[f"/{name}{query}"] = file.read_bytes()
    run = make_run(
        tmp_path / "runs",
        reviews=f"{address}/reviews.json{query}",  # type: ignore[arg-type]
        metadata=f"{address}/meta.json{query}",  # type: ignore[arg-type]
        NO_PROXY="127.0.0.1",
        LATENTREC_NOTIFY_URL=f"{server.url}/services/T0KEN-webhook",
        LATENTREC_NOTIFY_ON="failed,succeeded,promoted",
        OPENAI_API_KEY="sk-planted-key",
        LATENTREC_S3_ACCESS_KEY="planted",
        LATENTREC_S3_SECRET_KEY="planted-s3-secret",
    )
    assert run.code == 0, run.text[-3000:]
    assert (tmp_path / "runs" / "mlflow.db").is_file()
    assert len(run.artifacts) > 5
    found = holding(tmp_path / "runs", run.text)
    assert found == [], "\n".join(map(str, found))


def test_a_tracking_server_s_password_is_left_nowhere(tmp_path, server, monkeypatch, capfd):
    """The server answers nothing that MLflow understands: what could not be sent is kept, without it."""
    reviews, _ = generate_sample(tmp_path / "shop", users=20, items=72, events_per_user=6)
    runs = tmp_path / "runs"
    runs.mkdir()
    monkeypatch.chdir(runs)
    address = server.url.replace("http://", "http://ann:hunter2-tracking@")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("LATENTREC_STATUS_ROOT", str(runs / "status"))
    monkeypatch.setenv("LATENTREC_RUN_ID", "run-1")
    main(["data-prep", "--reviews", str(reviews), "--k-core", "2", "--output", "ds"])
    printed = capfd.readouterr()
    assert (runs / "status" / "run-1").is_dir()
    assert holding(tmp_path, printed.out, printed.err) == []
