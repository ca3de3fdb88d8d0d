"""The acceptance of an installation against a server of the KFP API: what it says when all is well or not."""

import json
import shutil
import threading
from pathlib import Path

import pytest

from latentrec.core import UserError
from latentrec.storage import store_for
from pipeline import schedule, smoke_checks, smoke_cluster, submit
from pipeline.cluster import Cluster, Unreachable
from pipeline.kubectl import Kubectl, Pod
from pipeline.smoke_report import Report
from tests.errors import refused
from tests.fakes.kfp_server import KfpServer

GOLDEN = Path(__file__).parent / "golden"
STEPS = ("preflight", "data-prep", "sft-2", "evaluate", "register", "run-summary")
BEGAN, ENDED = "2026-01-05T03:00:00Z", "2026-01-05T03:01:00Z"


@pytest.fixture
def server(monkeypatch, tmp_path):
    def reviewed(output: Path, systems: tuple[str, ...]) -> list[Path]:
        output.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copy(GOLDEN / f"{system}.yaml", output)) for system in systems]

    for module in (submit, schedule):
        monkeypatch.setattr(module, "BUILD", tmp_path)
        monkeypatch.setattr(module, "compile_pipelines", reviewed)
    monkeypatch.setattr(Kubectl, "problem", staticmethod(lambda: "kubectl is not on the PATH"))
    monkeypatch.setattr(smoke_checks, "SETTLE_S", 1.0)
    monkeypatch.setattr(smoke_checks, "TRAIN_S", 0.01)
    monkeypatch.setenv("LATENTREC_ALLOW_LOCAL_IMAGES", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    running = KfpServer().start()
    yield running
    running.stop()


def details(states: dict[str, str], cached: tuple[str, ...] = ()) -> list[dict]:
    """Entries as the API returns them: attempts, drivers, executors, and some without name or state."""
    found: list[dict] = [{"task_id": "1", "execution_id": "18"}, {"display_name": "grpo"}]
    for name, state in states.items():
        seen = ["SUCCEEDED"] if name in cached else ["RUNNING", state]
        entry = {
            "state": state,
            "start_time": BEGAN,
            "end_time": BEGAN if name in cached else ENDED,
            "state_history": [{"state": word, "update_time": ENDED} for word in seen],
        }
        for shown in (name, f"{name}(0)", f"{name}-driver", f"{name}-driver(0)", "executor", "executor(0)"):
            found.append({"display_name": shown, **entry})
    return found


def behave(server: KfpServer, *, cached: tuple[str, ...] = ("data-prep", "sft-2"), state: str = "SUCCEEDED"):
    """Runs end at once, from the second on from the cache; long ones wait to be terminated."""

    def end(run: dict) -> None:
        given = run["runtime_config"]["parameters"]
        if given["registry_model_name"] != "latentr3-smoke":
            run |= {"state": "RUNNING", "run_details": {"task_details": details({"sft": "RUNNING"})}}
            return
        again = len(server.runs) > 1
        states = dict.fromkeys(STEPS, "SUCCEEDED") | ({} if state == "SUCCEEDED" else {"sft-2": state})
        found = details(states, cached if again else ())
        run |= {"state": state, "finished_at": ENDED, "run_details": {"task_details": found}}

    def begin(recurring: dict) -> None:
        states = dict.fromkeys(("preflight", "data-prep", "run-summary"), "SUCCEEDED")
        run = server.add_run(
            recurring_run_id=recurring["recurring_run_id"],
            experiment_id=recurring["experiment_id"],
            state="RUNNING",
        )

        def end() -> None:  # KFP deletes a recurring run's workflows with it: such a run never ends
            if recurring["recurring_run_id"] in server.recurring:
                run.update(state="SUCCEEDED", run_details={"task_details": details(states)})

        threading.Timer(0.2, end).start()

    def terminate(run: dict) -> None:
        states = {"preflight": "SUCCEEDED", "sft": "FAILED", "run-summary": "SUCCEEDED"}
        run |= {"state": "FAILED", "run_details": {"task_details": details(states)}}

    server.on_run, server.on_recurring, server.on_terminate = end, begin, terminate


def run(server: KfpServer):
    cluster = Cluster(host=server.url)
    return smoke_cluster.smoke(cluster, "", "gs://bucket/smoke", timeout_s=30, every_s=0.02)


def outcomes(report) -> dict[str, str]:
    return {what: outcome for outcome, what, _ in report.checks}


def test_a_good_cluster_passes_every_check_that_can_be_made(server, gcs_server, capsys, tmp_path):
    behave(server)
    report = run(server)
    assert report.good, report.checks
    assert outcomes(report) == {
        "the run succeeded": "ok",
        "the run summary ran": "ok",
        "the second run succeeded": "ok",
        "its data preparation came from the cache": "ok",
        "its preflight did not": "ok",
        "its registration did not": "ok",
        "the registered model loads and recommends": "skipped",
        "a schedule without catch-up was made": "ok",
        "the same schedule made twice is one": "ok",
        "the scheduled run found nothing new and ended well": "ok",
        "MLflow says that it succeeded": "skipped",
        "a training pod asks for its accelerator": "skipped",
        "a deleted training pod came back": "skipped",
        "the terminated run ended": "ok",
        "the terminated run's summary ran": "ok",
        "MLflow says that it was terminated, and nothing of it still runs": "skipped",
    }
    assert not server.recurring, "the schedule is taken away again"
    given = next(iter(server.runs.values()))["runtime_config"]["parameters"]
    assert (given["gpu_count"], given["resources"]) == ("0", "small")
    assert store_for(given["customer_reviews"]).stat(given["customer_reviews"]).size > 1000
    report.write(tmp_path / "report.json")
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["versions"]["kfp backend"] == "2.17.0"
    assert len(written["checks"]) == len(report.checks)
    assert set(written["runs"]) == {"first", "second", "scheduled", "terminated"}


class Nodes:
    """kubectl on a cluster with an accelerator, whose pods come back after a deletion."""

    def __init__(
        self, comes_back: bool = True, limit: str | None = "1", messages: list[str] | None = None
    ) -> None:
        self.messages = messages or []
        self.namespace, self.limit, self.comes_back = "kubeflow", limit, comes_back
        self.deleted: list[str] = []

    def pods(self, run_id: str) -> list[Pod]:
        # Seen on Argo 4: the pod that takes a deleted one's place has its name.
        uid = str(len(self.deleted) if self.comes_back else 0)
        return [Pod(run_id, "sft", "Running", self.limit, running=True, uid=uid)]

    def delete_pod(self, name: str) -> bool:
        self.deleted.append(name)
        return True

    def accelerators(self) -> int:
        return 1

    def workflow_messages(self, run_id: str) -> list[str]:
        return self.messages

    def version(self) -> str:
        return "v1.34.4"


@pytest.mark.parametrize(
    ("nodes", "accelerator", "back"),
    [(Nodes(), "ok", "ok"), (Nodes(limit=None), "FAILED", "ok"), (Nodes(comes_back=False), "ok", "FAILED")],
    ids=["good", "no limit", "pod stays away"],
)
def test_pods_are_looked_at_and_deleted_where_kubectl_is(
    server, gcs_server, monkeypatch, nodes, accelerator, back
):
    behave(server)
    monkeypatch.setattr(Kubectl, "problem", staticmethod(lambda: ""))
    placeholder = type("K", (), {"problem": Kubectl.problem, "__new__": lambda *_: nodes})
    monkeypatch.setattr(smoke_cluster, "Kubectl", placeholder)
    cluster = Cluster(host=server.url)
    report = smoke_cluster.smoke(cluster, "", "gs://bucket/smoke", timeout_s=2, every_s=0.02)
    found = outcomes(report)
    assert found["a training pod asks for its accelerator"] == accelerator
    assert found["a deleted training pod came back"] == back
    assert report.versions["kubernetes"] == "v1.34.4"


def test_mlflow_is_asked_how_the_terminated_run_ended(server, gcs_server, monkeypatch, tracked):
    behave(server)
    report = run(server)
    assert outcomes(report)["MLflow says that it succeeded"] == "FAILED"
    assert outcomes(report)["the registered model loads and recommends"] == "FAILED"
    assert not report.good


def test_a_cluster_without_a_cache_is_found(server, gcs_server):
    behave(server, cached=())
    report = run(server)
    assert outcomes(report)["its data preparation came from the cache"] == "FAILED"
    assert not report.good


def test_tasks_that_stay_behind_their_run_are_judged_by_their_pods(server, gcs_server, monkeypatch):
    """Seen on KFP 2.17: the run is SUCCEEDED, its last tasks stay RUNNING or absent for ever."""
    behave(server, cached=())
    good = server.on_run

    def stale(run: dict) -> None:
        good(run)
        for entry in run["run_details"]["task_details"]:
            if entry.get("display_name", "").startswith(("register", "run-summary", "evaluate")):
                entry |= {"state": "RUNNING", "end_time": "0001-01-01T00:00:00Z", "state_history": []}

    server.on_run = stale

    class Pods(Nodes):
        def pods(self, run_id: str) -> list[Pod]:
            found = [Pod("p", "preflight", "Succeeded", None, running=False)]
            found += [
                Pod("r", step, "Succeeded", None, running=False) for step in ("register", "run_summary")
            ]
            return found + super().pods(run_id)

    monkeypatch.setattr(Kubectl, "problem", staticmethod(lambda: ""))
    nodes = Pods()
    placeholder = type("K", (), {"problem": Kubectl.problem, "__new__": lambda *_: nodes})
    monkeypatch.setattr(smoke_cluster, "Kubectl", placeholder)
    found = outcomes(run(server))
    for what in (
        "the run summary ran",
        "its data preparation came from the cache",
        "its registration did not",
    ):
        assert found[what] == "ok", what


def test_a_failed_run_ends_the_test_and_names_the_tasks(server, gcs_server):
    behave(server, state="FAILED")
    report = run(server)
    assert report.checks == [("FAILED", "the run succeeded", "it is FAILED; failed tasks: sft-2")]
    assert len(server.runs) == 1


def test_an_api_that_is_away_for_a_moment_does_not_end_the_acceptance(monkeypatch):
    answers = iter([Unreachable("connection lost"), Unreachable("does not answer"), None, "there"])

    def found():
        answer = next(answers)
        if isinstance(answer, UserError):
            raise answer
        return answer

    waiting = smoke_checks.Smoke(Cluster(host="http://x"), {}, Report(host="x"), every_s=0.01)
    assert waiting.until(found, 5) == "there"
    monkeypatch.setattr(smoke_checks, "LOST_S", -1.0)
    answers = iter([Unreachable("connection lost")])
    with pytest.raises(Unreachable):
        waiting.until(found, 5)
    answers = iter([UserError("no", code="cluster.refused")])
    monkeypatch.setattr(smoke_checks, "LOST_S", 60.0)
    with refused("cluster.refused"):
        waiting.until(found, 5)


def test_whoever_is_away_is_told_from_whoever_refuses(server):
    from pipeline.cluster import backend_version

    server.away = True
    with refused("cluster.unreachable", server.url, "HTTP 503", error=Unreachable):
        backend_version(Cluster(host=server.url))
    with refused("cluster.unreachable", "http://127.0.0.1:9", error=Unreachable):
        backend_version(Cluster(host="http://127.0.0.1:9"))


def test_a_run_that_never_ends_is_given_up(server, gcs_server):
    with refused("cluster.run_timeout", "PENDING"):
        smoke_cluster.smoke(Cluster(host=server.url), "", "gs://bucket/s", timeout_s=0.2, every_s=0.05)


@pytest.mark.parametrize(
    ("tag", "known"), [("2.17.0", "2.17.0"), ("v2.16.1", "2.16.1"), ("unknown", "unknown")]
)
def test_the_backend_s_version_is_said(server, tag, known):
    from pipeline.cluster import backend_version

    server.health = {"tag_name": tag}
    assert backend_version(Cluster(host=server.url)) == known
    server.health = {"apiServerTagName": tag, "buildDate": ""}  # the UI answers in the API's place
    assert backend_version(Cluster(host=server.url)) == known


def test_a_backend_that_is_too_old_is_refused_before_anything_is_uploaded(server, gcs_server):
    server.health = {"tag_name": "2.15.0"}
    with refused("cluster.backend_too_old", "2.15.0", "2.16"):
        run(server)
    assert not server.pipelines


def test_images_of_this_machine_are_refused(server, monkeypatch):
    monkeypatch.delenv("LATENTREC_ALLOW_LOCAL_IMAGES")
    with refused("images.not_pullable", "localhost/latentrec/"):
        submit.submit("latentr3", {"customer_reviews": "gs://b/r"}, Cluster(host=server.url))


def test_a_sample_on_this_machine_is_refused(server, tmp_path):
    with refused("config.bad_value", "SMOKE_LOCATION"):
        smoke_cluster.upload_sample(str(tmp_path))


@pytest.mark.parametrize(
    ("messages", "states", "outcome"),
    [
        (None, {}, "skipped"),
        (["Step exceeded its deadline"], {}, "skipped"),
        (["Pod was terminated"], {}, "FAILED"),
        (["Step exceeded its deadline"], {"run-summary": "FAILED"}, "FAILED"),
    ],
    ids=["no kubectl", "given up", "lost", "failed"],
)
def test_an_exit_handler_that_argo_gave_up_is_told_apart_from_a_failure(
    server, gcs_server, monkeypatch, messages, states, outcome
):
    """A terminated run under load: the summary's driver had not started when Argo next looked."""
    behave(server)

    def terminate(run: dict) -> None:
        run |= {"state": "FAILED", "run_details": {"task_details": details({"sft": "FAILED"} | states)}}

    server.on_terminate = terminate
    if messages is not None:
        nodes = Nodes(messages=messages)
        monkeypatch.setattr(Kubectl, "problem", staticmethod(lambda: ""))
        placeholder = type("K", (), {"problem": Kubectl.problem, "__new__": lambda *_: nodes})
        monkeypatch.setattr(smoke_cluster, "Kubectl", placeholder)
    report = run(server)
    assert outcomes(report)["the terminated run's summary ran"] == outcome
    assert report.good == (outcome == "skipped")


def test_a_schedule_is_deleted_only_after_its_run_has_ended(server, gcs_server):
    """KFP deletes the workflows of a recurring run with it; a run under way would stay RUNNING for ever."""
    behave(server)
    assert run(server).good
    requests = [entry for entry in server.requests if "recurringruns/" in entry or "/runs/" in entry]
    deleted = next(i for i, entry in enumerate(requests) if entry.startswith("DELETE"))
    paused = next(i for i, entry in enumerate(requests) if entry.endswith(":disable"))
    assert any("/runs/" in entry for entry in requests[paused:deleted]), "its end is waited for in between"
