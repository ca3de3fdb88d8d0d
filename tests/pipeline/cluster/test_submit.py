"""Submitting, through the command that `make` calls, against a server of the KFP API."""

import re
import socket
import subprocess
import sys
import threading
import time

import pytest

from pipeline import schedule, submit
from tests.errors import refused
from tests.fakes.web_server import WebServer
from tests.pipeline.cluster.kfp_commands import PARAMS, ROOT, only


def test_submit_uploads_a_version_and_starts_a_run_of_it(server, monkeypatch, capsys):
    monkeypatch.setenv("KFP_SERVICE_ACCOUNT", "latentrec-steps")
    monkeypatch.setenv("KFP_PIPELINE_ROOT", "gs://b/root")
    submit.main(["--system", "latentr3", "--params", PARAMS])
    run, version = only(server.runs), only(server.versions)
    assert only(server.pipelines)["display_name"] == "latentr3"
    assert run["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert run["runtime_config"]["parameters"] == {
        "customer_reviews": "gs://b/reviews.json.gz",
        "data_k_core": 3,
        "settings": {"sft.patience": "1"},
    }
    assert run["runtime_config"]["pipeline_root"] == "gs://b/root"
    assert run["service_account"] == "latentrec-steps"
    assert f"{server.url}/#/runs/details/{run['run_id']}" in capsys.readouterr().out


def test_the_same_pipeline_is_uploaded_once_and_a_changed_one_as_a_new_version(server, monkeypatch):
    submit.main(["--system", "lares", "--params", PARAMS.split(" sft.")[0]])
    submit.main(["--system", "lares", "--params", PARAMS.split(" sft.")[0]])
    assert (len(server.pipelines), len(server.versions), len(server.runs)) == (1, 1, 2)
    unchanged = submit.compile_pipelines

    def changed(output, systems):
        (path,) = unchanged(output, systems)
        path.write_text(path.read_text().replace("description: ", "description: Changed. ", 1))
        return [path]

    monkeypatch.setattr(submit, "compile_pipelines", changed)
    submit.main(["--system", "lares", "--params", PARAMS.split(" sft.")[0]])
    assert (len(server.pipelines), len(server.versions)) == (1, 2)
    latest = list(server.versions)[-1]
    assert list(server.runs.values())[-1]["pipeline_version_reference"]["pipeline_version_id"] == latest


def test_a_run_s_name_and_description_say_what_runs(server, monkeypatch):
    submit.main(["--params", PARAMS])
    run = only(server.runs)
    assert re.fullmatch(r"latentr3 reviews \d\d-\d\d \d\d:\d\d:\d\d", run["display_name"])
    assert run["description"].startswith(f"latentr3, version {only(server.versions)['display_name']}: ")
    assert "customer_reviews=gs://b/reviews.json.gz data_k_core=3" in run["description"]
    assert "images " in only(server.versions)["description"]
    monkeypatch.setenv("NAME", "first try")
    submit.main(["--params", PARAMS])
    assert list(server.runs.values())[-1]["display_name"] == "first try"


def test_the_description_of_a_run_tells_no_secret(server):
    given = "customer_reviews=https://user:hidden@host/r.json?X-Signature=abc123 data_k_core=3"
    submit.main(["--params", given])
    shown = only(server.runs)["description"] + only(server.runs)["display_name"]
    assert "https://host/r.json" in shown
    assert not re.search("hidden|abc123", shown)


def test_a_long_description_is_cut_to_what_kfp_keeps(server):
    submit.main(["--params", PARAMS + " data_metadata=gs://bucket/" + "m" * 400])
    described = only(server.runs)["description"]
    assert len(described) == 255
    assert described.endswith("…")


def test_a_version_may_be_chosen_by_name(server):
    submit.main(["--params", PARAMS])
    name = only(server.versions)["display_name"]
    submit.main(["--params", PARAMS, "--version", name])
    assert len(server.versions) == 1
    with refused("cluster.unknown_version", "'0.0.9'", "latentr3", name):
        submit.main(["--params", PARAMS, "--version", "0.0.9"])
    with refused("cluster.unknown_version", "lares"):
        schedule.main(["create", "--system", "lares", "--params", PARAMS.split(" sft")[0], "--version", "1"])


@pytest.mark.parametrize("command", ["submit", "schedule"])
def test_a_dead_host_is_one_line_and_exit_code_2(command, monkeypatch):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{held.getsockname()[1]}"
        words = ["create"] if command == "schedule" else []
        begin = time.monotonic()
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                f"pipeline.{command}",
                *words,
                "--system",
                "lares",
                "--params",
                "customer_reviews=gs://b/r",
            ],
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", "KFP_HOST": host, "HOME": "/nonexistent"},
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 2, done.stderr
    told = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(told) == 1, done.stderr
    assert told[0].startswith(f"error: KFP_HOST {host} does not answer")
    assert time.monotonic() - begin < 60


def test_an_unauthorised_host_asks_for_a_token(server, monkeypatch):
    server.token = "right"
    with refused("cluster.unauthorized", "KFP_TOKEN"):
        submit.main(["--system", "lares", "--params", "customer_reviews=gs://b/r"])
    monkeypatch.setenv("KFP_TOKEN", "wrong")
    with refused("cluster.unauthorized", "KFP_TOKEN") as caught:
        submit.main(["--system", "lares", "--params", "customer_reviews=gs://b/r"])
    assert "wrong" not in str(caught.value)
    monkeypatch.setenv("KFP_TOKEN", "right")
    submit.main(["--system", "lares", "--params", "customer_reviews=gs://b/r"])
    assert len(server.runs) == 1


def test_tokens_of_a_file_and_sessions_of_a_login_page_are_taken(server, monkeypatch, tmp_path):
    """oauth2-proxy takes a service account's token, which is renewed in its file; others want cookies."""
    server.token = "right"
    file = tmp_path / "token"
    file.write_text("right\n")
    monkeypatch.setenv("KFP_TOKEN_FILE", str(file))
    submit.main(["--system", "lares", "--params", "customer_reviews=gs://b/r"])
    file.write_text("late")
    with refused("cluster.unauthorized", "KFP_TOKEN_FILE"):
        submit.main(["--system", "lares", "--params", "customer_reviews=gs://b/r"])
    monkeypatch.setenv("KFP_TOKEN_FILE", str(tmp_path / "absent"))
    with refused("cluster.unreadable_token", "KFP_TOKEN_FILE"):
        submit.main(["--system", "lares", "--params", "customer_reviews=gs://b/r"])
    monkeypatch.delenv("KFP_TOKEN_FILE")
    server.token, server.cookie = "", "session=42"
    with refused("cluster.unauthorized"):
        submit.main(["--system", "lares", "--params", "customer_reviews=gs://b/r"])
    monkeypatch.setenv("KFP_COOKIES", "session=42")
    submit.main(["--system", "lares", "--params", "customer_reviews=gs://b/r"])


def test_a_token_of_identity_aware_proxy_comes_from_kfp_s_own_client(server, monkeypatch):
    from kfp.client import auth

    asked = []

    def google(*clients):
        asked.append(clients)
        return "from-google", False

    monkeypatch.setattr(auth, "get_auth_token", google)
    server.token = "from-google"
    monkeypatch.setenv("KFP_IAP_CLIENT_ID", "proxy.apps.googleusercontent.com")
    submit.main(["--system", "lares", "--params", "customer_reviews=gs://b/r"])
    assert set(asked) == {("proxy.apps.googleusercontent.com", None, None)}
    monkeypatch.setattr(auth, "get_auth_token", lambda *_: (None, False))
    with refused("cluster.no_token", "KFP_IAP_CLIENT_ID"):
        submit.main(["--system", "lares", "--params", "customer_reviews=gs://b/r"])


def test_in_a_multi_user_installation_everything_is_made_in_the_namespace(server, monkeypatch):
    monkeypatch.setenv("KFP_NAMESPACE", "team-a")
    submit.main(["--params", PARAMS])
    schedule.main(["create", "--params", PARAMS])
    assert only(server.pipelines)["namespace"] == "team-a"
    assert only(server.experiments)["namespace"] == "team-a"
    assert len(server.versions) == 1


def test_a_host_that_is_no_kfp_api_is_told_apart(monkeypatch, tmp_path):
    web = WebServer()
    web.files = {"/apis/v2beta1/healthz": b"<html>sign in</html>"}
    threading.Thread(target=web.serve_forever, daemon=True).start()
    monkeypatch.setenv("KFP_HOST", web.url)
    try:
        with refused("cluster.not_kfp", "v2"):
            submit.main(["--system", "lares", "--params", "customer_reviews=gs://b/r"])
    finally:
        web.shutdown()
        web.server_close()


@pytest.mark.parametrize(
    ("params", "code", "named"),
    [
        ("data_k_core=5", "config.missing_value", ("customer_reviews",)),
        (
            "customer_reviews=/tmp/reviews.json",
            "images.not_pullable",
            ("customer_reviews", "'/tmp/reviews.json'"),
        ),
        ("customer_reviews=gs://b/r data_k_core=-1", "config.invalid", ("data_k_core", "-1")),
        ("customer_reviews=gs://b/r data_k_cor=1", "config.unknown_name", ("'data_k_cor'", "'data_k_core'")),
    ],
)
def test_wrong_parameters_never_reach_the_cluster(server, params, code, named):
    with refused(code, *named):
        submit.main(["--params", params])
    assert not server.requests


def test_without_a_host_the_command_says_how_to_give_one(monkeypatch):
    monkeypatch.delenv("KFP_HOST", raising=False)
    with refused("cluster.not_set", "KFP_HOST"):
        submit.main(["--params", PARAMS])
