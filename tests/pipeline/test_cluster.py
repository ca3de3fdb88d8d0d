"""Submitting and scheduling, through the commands that `make` calls, against a server of the KFP API."""

import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from latentrec.core import UserError
from latentrec.steps.preflight import cutoff_day
from pipeline import schedule, submit
from pipeline.compile import compile_pipelines
from pipeline.schedule import check_cron
from tests.fakes.kfp_server import KfpServer
from tests.fakes.web_server import WebServer

ROOT = Path(__file__).resolve().parents[2]
PARAMS = "customer_reviews=gs://b/reviews.json.gz data_k_core=3 sft.patience=1"
VARIABLES = ("TOKEN", "NAMESPACE", "EXPERIMENT", "SERVICE_ACCOUNT", "PIPELINE_ROOT", "CA_CERT")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Path:
    """Each pipeline that the tests use, compiled once."""
    output = tmp_path_factory.mktemp("compiled")
    compile_pipelines(output, ("latentr3", "lares"))
    return output


@pytest.fixture(autouse=True)
def _home(monkeypatch, tmp_path, compiled):
    """A clean environment, and compiled files that do not land in the checkout."""
    for name in VARIABLES:
        monkeypatch.delenv(f"KFP_{name}", raising=False)
    monkeypatch.setenv("LATENTREC_ALLOW_LOCAL_IMAGES", "true")

    def copies(output: Path, systems: tuple[str, ...]) -> list[Path]:
        output.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copy(compiled / f"{system}.yaml", output)) for system in systems]

    for module in (submit, schedule):
        monkeypatch.setattr(module, "BUILD", tmp_path / "build")
        monkeypatch.setattr(module, "compile_pipelines", copies)


@pytest.fixture
def server(monkeypatch):
    running = KfpServer().start()
    monkeypatch.setenv("KFP_HOST", running.url)
    yield running
    running.stop()


def only(table: dict) -> dict:
    (entry,) = table.values()
    return entry


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


def test_a_schedule_never_catches_up_and_never_overlaps(server):
    schedule.main(["create", "--cron", "0 30 4 * * MON-FRI", "--params", PARAMS])
    made = only(server.recurring)
    assert made["no_catchup"] is True
    assert int(made["max_concurrency"]) == 1
    assert made["trigger"]["cron_schedule"]["cron"] == "0 30 4 * * MON-FRI"
    assert made["status"] == "ENABLED"
    given = made["runtime_config"]["parameters"]
    assert (given["customer_reviews"], given["data_only_new"]) == ("gs://b/reviews.json.gz", True)


def test_a_schedule_may_train_without_new_data_too(server):
    schedule.main(["create", "--params", PARAMS + " data_only_new=false"])
    assert only(server.recurring)["runtime_config"]["parameters"]["data_only_new"] is False


def cutoff_of(version: dict) -> dict:
    tasks = version["pipeline_spec"]["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    return tasks["preflight"]["inputs"]["parameters"]["data_cutoff"]


def test_a_scheduled_run_ends_its_data_at_the_scheduled_time(server):
    schedule.main(["create", "--params", PARAMS])
    assert cutoff_of(only(server.versions)) == {
        "runtimeValue": {"constant": "{{$.pipeline_job_schedule_time_utc}}"}
    }
    assert cutoff_day("2026-01-05T03:00:00Z") == "2026-01-05"


def test_an_installation_that_leaves_the_placeholder_alone_is_found_by_preflight():
    with pytest.raises(UserError, match="pipeline_job_schedule_time_utc"):
        cutoff_day("{{$.pipeline_job_schedule_time_utc}}")


def test_a_cut_off_given_by_hand_wins_over_the_schedule(server):
    schedule.main(["create", "--params", PARAMS + " data_cutoff=2026-01-01"])
    assert "componentInputParameter" in cutoff_of(only(server.versions))
    assert only(server.recurring)["runtime_config"]["parameters"]["data_cutoff"] == "2026-01-01"


def test_schedules_are_listed_paused_resumed_and_deleted(server, capsys):
    schedule.main(["create", "--params", PARAMS])
    key = only(server.recurring)["recurring_run_id"]
    schedule.main(["pause", "--id", key])
    assert only(server.recurring)["status"] == "DISABLED"
    capsys.readouterr()
    schedule.main(["list"])
    assert f"{key}  DISABLED  '0 0 3 * * 1'" in capsys.readouterr().out
    schedule.main(["resume", "--id", key])
    assert only(server.recurring)["status"] == "ENABLED"
    schedule.main(["delete", "--id", key])
    assert not server.recurring
    with pytest.raises(UserError, match=f"HTTP 404.*{key} not found"):
        schedule.main(["pause", "--id", key])
    with pytest.raises(UserError, match="no ID is given"):
        schedule.main(["pause"])


def test_a_list_of_schedules_longer_than_a_page_is_whole(server):
    server.page_size = 2
    schedule.main(["create", "--params", PARAMS])
    first = only(server.recurring)
    server.recurring |= {f"more-{number}": dict(first) for number in range(4)}
    found = schedule.list_schedules(schedule.Cluster.from_environment())
    assert len(found) == 5


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
    with pytest.raises(UserError, match="wants a token; set KFP_TOKEN"):
        submit.main(["--system", "lares", "--params", "customer_reviews=gs://b/r"])
    monkeypatch.setenv("KFP_TOKEN", "wrong")
    with pytest.raises(UserError, match="refuses the token in KFP_TOKEN") as caught:
        submit.main(["--system", "lares", "--params", "customer_reviews=gs://b/r"])
    assert "wrong" not in str(caught.value)
    monkeypatch.setenv("KFP_TOKEN", "right")
    submit.main(["--system", "lares", "--params", "customer_reviews=gs://b/r"])
    assert len(server.runs) == 1


def test_a_host_that_is_no_kfp_api_is_told_apart(monkeypatch, tmp_path):
    web = WebServer()
    web.files = {"/apis/v2beta1/healthz": b"<html>sign in</html>"}
    threading.Thread(target=web.serve_forever, daemon=True).start()
    monkeypatch.setenv("KFP_HOST", web.url)
    try:
        with pytest.raises(UserError, match="no KFP v2 status"):
            submit.main(["--system", "lares", "--params", "customer_reviews=gs://b/r"])
    finally:
        web.shutdown()
        web.server_close()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("data_k_core=5", "PARAMS has no customer_reviews"),
        ("customer_reviews=/tmp/reviews.json", "a path of this machine"),
        ("customer_reviews=gs://b/r data_k_core=-1", "data_k_core is -1, expected at least 1"),
        ("customer_reviews=gs://b/r data_k_cor=1", "no parameter 'data_k_cor'; did you mean 'data_k_core'"),
    ],
)
def test_wrong_parameters_never_reach_the_cluster(server, params, message):
    with pytest.raises(UserError, match=message):
        submit.main(["--params", params])
    assert not server.requests


def test_without_a_host_the_command_says_how_to_give_one(monkeypatch):
    monkeypatch.delenv("KFP_HOST", raising=False)
    with pytest.raises(UserError, match="KFP_HOST is not set"):
        submit.main(["--params", PARAMS])


@pytest.mark.parametrize("text", ["0 0 3 * * 1", "*/30 0-15 3,4 ? JAN-MAR MON", "0 0 0 1 1 ?"])
def test_six_fields_are_a_schedule(text):
    assert check_cron(f" {text} ") == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 3 * * 1", "5 fields, expected six.*write '0 0 3"),
        ("", "0 fields"),
        ("0 0 24 * * 1", "hour is '24'"),
        ("0 0 3 * * 7", "day of week is '7'"),
        ("0 0 3 * 0 1", "month is '0'"),
        ("0 0 5-3 * * 1", "hour is '5-3'"),
        ("0 */0 3 * * 1", "minute is"),
        ("? 0 3 * * 1", "second is"),
        ("0 0 3 * * LUN", "day of week is 'LUN'"),
    ],
)
def test_a_wrong_schedule_is_refused_here(text, message):
    with pytest.raises(UserError, match=message):
        check_cron(text)
