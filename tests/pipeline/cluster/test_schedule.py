"""Schedules, through the command that `make` calls, against a server of the KFP API."""

import re
import threading

import pytest

from latentrec.steps.data_cutoff import cutoff_day
from pipeline import schedule, submit
from tests.errors import refused
from tests.pipeline.cluster.kfp_commands import PARAMS, only


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
    with refused("config.no_scheduled_time", "data_cutoff", f"'{time}'"):
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
    with refused("cluster.refused", "0 0 4 * * *"):
        schedule.main(["create", "--params", PARAMS, "--cron", "0 0 4 * * *"])
    assert only(server.recurring)["status"] == "ENABLED"


def test_a_recurring_run_made_in_kfp_s_page_is_left_alone(server):
    schedule.main(["create", "--params", PARAMS])
    only(server.recurring)["description"] = "by hand"
    with refused("schedule.name_taken", "latentr3"):
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
    polls = [entry for entry in server.requests[paused:deleted] if entry.endswith("/runs")]
    assert len(polls) > 1, "asked until the run has ended"


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
    with refused("schedule.not_found", f"'{key}'"):
        schedule.main(["pause", "--id", key])
    with refused("config.missing_value", "ID"):
        schedule.main(["pause"])


def test_a_list_of_schedules_longer_than_a_page_is_whole(server):
    server.page_size = 2
    schedule.main(["create", "--params", PARAMS])
    first = only(server.recurring)
    server.recurring |= {f"more-{number}": dict(first) for number in range(4)}
    found = schedule.list_schedules(schedule.Cluster.from_environment())
    assert len(found) == 5
