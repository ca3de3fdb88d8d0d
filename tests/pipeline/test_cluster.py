"""Submitting and scheduling, through the commands that `make` calls, against a server of the KFP API."""

import re
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
from pipeline.cron import check_cron
from tests.fakes.kfp_server import KfpServer
from tests.fakes.web_server import WebServer

ROOT = Path(__file__).resolve().parents[2]
PARAMS = "customer_reviews=gs://b/reviews.json.gz data_k_core=3 sft.patience=1"
VARIABLES = (
    "TOKEN",
    "TOKEN_FILE",
    "COOKIES",
    "IAP_CLIENT_ID",
    "NAMESPACE",
    "EXPERIMENT",
    "SERVICE_ACCOUNT",
    "PIPELINE_ROOT",
    "CA_CERT",
)


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


def test_a_scheduled_run_ends_its_data_at_the_scheduled_time(server):
    """KFP fills its placeholder in where a task has it as a constant, not where it is a run's parameter."""
    schedule.main(["create", "--params", PARAMS])
    tasks = only(server.versions)["pipeline_spec"]["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    assert tasks["preflight"]["inputs"]["parameters"]["scheduled_time"] == {
        "runtimeValue": {"constant": "{{$.pipeline_job_schedule_time_utc}}"}
    }
    assert only(server.recurring)["runtime_config"]["parameters"]["data_cutoff"] == "scheduled"
    assert cutoff_day("scheduled", "2026-01-05T03:00:00Z") == "2026-01-05"


@pytest.mark.parametrize("time", ["{{$.pipeline_job_schedule_time_utc}}", ""])
def test_an_installation_that_leaves_the_placeholder_alone_is_found_by_preflight(time):
    with pytest.raises(UserError, match="data_cutoff is scheduled, and nobody tells when"):
        cutoff_day("scheduled", time)
    assert cutoff_day("", time) == "", "a run by hand does not care"


def test_a_cut_off_given_by_hand_wins_over_the_schedule(server):
    schedule.main(["create", "--params", PARAMS + " data_cutoff=2026-01-01"])
    assert only(server.recurring)["runtime_config"]["parameters"]["data_cutoff"] == "2026-01-01"


def test_one_version_serves_runs_and_schedules(server):
    submit.main(["--params", PARAMS])
    schedule.main(["create", "--params", PARAMS])
    reference = only(server.recurring)["pipeline_version_reference"]
    assert only(server.versions)["pipeline_version_id"] == reference["pipeline_version_id"]
    assert only(server.runs)["pipeline_version_reference"] == reference


def test_a_run_s_name_and_description_say_what_runs(server, monkeypatch):
    submit.main(["--params", PARAMS])
    run = only(server.runs)
    assert re.fullmatch(r"latentr3 reviews \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", run["display_name"])
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
    with pytest.raises(UserError, match=rf"VERSION is '0\.0\.9'; latentr3 has: {re.escape(name)}"):
        submit.main(["--params", PARAMS, "--version", "0.0.9"])
    with pytest.raises(UserError, match="no pipeline 'lares'"):
        schedule.main(["create", "--system", "lares", "--params", PARAMS.split(" sft")[0], "--version", "1"])


def test_the_same_schedule_made_twice_is_one(server):
    for _ in range(2):
        schedule.main(["create", "--params", PARAMS])
    assert len(server.recurring) == 1


def test_a_schedule_of_the_same_name_is_replaced(server, capsys):
    schedule.main(["create", "--params", PARAMS])
    first = only(server.recurring)["recurring_run_id"]
    schedule.main(["create", "--params", PARAMS, "--cron", "0 0 4 * * *"])
    assert first not in server.recurring
    assert only(server.recurring)["trigger"]["cron_schedule"]["cron"] == "0 0 4 * * *"
    schedule.main(["create", "--params", PARAMS, "--name", "another"])
    assert len(server.recurring) == 2


def test_a_run_in_progress_lives_through_the_replacement_of_its_schedule(server, capsys):
    """KFP deletes a recurring run's workflows with it; such a run stays RUNNING for ever."""
    schedule.main(["create", "--params", PARAMS])
    old = only(server.recurring)
    key, experiment = old["recurring_run_id"], old["experiment_id"]
    run = server.add_run(recurring_run_id=key, experiment_id=experiment, state="RUNNING")
    schedule.main(["create", "--params", PARAMS, "--cron", "0 0 4 * * *"])
    assert server.recurring[key]["status"] == "DISABLED", "it starts nothing more, and keeps its run"
    assert [entry["status"] for entry in server.recurring.values()] == ["DISABLED", "ENABLED"]
    assert f"goes on:    {server.url}/#/runs/details/{run['run_id']}" in capsys.readouterr().out
    schedule.main(["list"])
    assert key in server.recurring
    run["state"] = "SUCCEEDED"
    schedule.main(["list"])
    assert key not in server.recurring, "whichever command comes next takes it away"
    assert len(server.recurring) == 1


def test_the_old_schedule_goes_on_where_the_new_one_is_refused(server):
    schedule.main(["create", "--params", PARAMS])
    server.refuse_cron = True
    with pytest.raises(UserError, match="Cron string"):
        schedule.main(["create", "--params", PARAMS, "--cron", "0 0 4 * * *"])
    assert only(server.recurring)["status"] == "ENABLED"


def test_a_recurring_run_made_in_kfp_s_page_is_left_alone(server):
    schedule.main(["create", "--params", PARAMS])
    only(server.recurring)["description"] = "by hand"
    with pytest.raises(UserError, match="'latentr3' exists that was not made by this command"):
        schedule.main(["create", "--params", PARAMS, "--cron", "0 0 4 * * *"])
    assert only(server.recurring)["status"] == "ENABLED"


def test_a_schedule_may_follow_the_newest_version(server, capsys):
    schedule.main(["create", "--params", PARAMS, "--version", "latest"])
    made = only(server.recurring)
    assert made["pipeline_version_reference"] == {"pipeline_id": only(server.pipelines)["pipeline_id"]}
    capsys.readouterr()
    schedule.main(["list"])
    assert "    version     latest" in capsys.readouterr().out


def test_deleting_a_schedule_waits_for_its_runs(server, capsys):
    schedule.main(["create", "--params", PARAMS])
    old = only(server.recurring)
    run = server.add_run(
        recurring_run_id=old["recurring_run_id"], experiment_id=old["experiment_id"], state="RUNNING"
    )
    threading.Timer(0.3, lambda: run.update(state="SUCCEEDED")).start()
    schedule.change("delete", "latentr3", schedule.Cluster.from_environment(), every_s=0.05)
    assert not server.recurring
    told = capsys.readouterr().out
    assert f"waits for   {server.url}/#/runs/details/{run['run_id']}" in told
    paused = next(i for i, entry in enumerate(server.requests) if entry.endswith(":disable"))
    deleted = next(i for i, entry in enumerate(server.requests) if entry.startswith("DELETE"))
    looks = [entry for entry in server.requests[paused:deleted] if entry.endswith("/runs")]
    assert len(looks) > 1, "looked at until the run has ended"


def test_schedules_are_listed_paused_resumed_and_deleted(server, capsys):
    schedule.main(["create", "--params", PARAMS])
    key = only(server.recurring)["recurring_run_id"]
    schedule.main(["pause", "--id", key])
    assert only(server.recurring)["status"] == "DISABLED"
    capsys.readouterr()
    schedule.main(["list"])
    told = capsys.readouterr().out
    assert f"latentr3  PAUSED  '0 0 3 * * 1'  {key}" in told
    assert "    next run    none" in told
    assert "    last run    none yet" in told
    assert "    customer_reviews=gs://b/reviews.json.gz" in told
    assert "    data_k_core=3" in told
    assert f"    version     {only(server.versions)['display_name']}" in told
    schedule.main(["resume", "--id", "latentr3"])
    assert only(server.recurring)["status"] == "ENABLED"
    server.add_run(
        recurring_run_id=key,
        experiment_id=only(server.recurring)["experiment_id"],
        state="SUCCEEDED",
    )
    schedule.main(["list"])
    told = capsys.readouterr().out
    assert re.search(r"    next run    20\d\d-\d\d-\d\d 03:00 UTC", told)
    assert f"    last run    2026-01-05 03:00 UTC SUCCEEDED {server.url}/#/runs/details/run-" in told
    schedule.main(["delete", "--id", key])
    assert not server.recurring
    with pytest.raises(UserError, match=f"ID is '{key}': no such schedule"):
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
    with pytest.raises(UserError, match="refuses what KFP_TOKEN gives") as caught:
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
    with pytest.raises(UserError, match="refuses what KFP_TOKEN_FILE gives"):
        submit.main(["--system", "lares", "--params", "customer_reviews=gs://b/r"])
    monkeypatch.setenv("KFP_TOKEN_FILE", str(tmp_path / "absent"))
    with pytest.raises(UserError, match=r"KFP_TOKEN_FILE is .*absent.*cannot be read"):
        submit.main(["--system", "lares", "--params", "customer_reviews=gs://b/r"])
    monkeypatch.delenv("KFP_TOKEN_FILE")
    server.token, server.cookie = "", "session=42"
    with pytest.raises(UserError, match="wants a token"):
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
    with pytest.raises(UserError, match="KFP_IAP_CLIENT_ID: no token from Google"):
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
