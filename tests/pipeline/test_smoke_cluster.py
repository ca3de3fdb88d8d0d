"""The smoke test for clusters against a server of the KFP API: what it prints when all is well, or not."""

import shutil
from pathlib import Path

import pytest

from latentrec.core import UserError
from latentrec.storage import store_for
from pipeline import schedule, smoke_cluster, submit
from pipeline.cluster import Cluster
from tests.fakes.kfp_server import KfpServer

GOLDEN = Path(__file__).parent / "golden"
STEPS = ("preflight", "data-prep", "register", "run-summary")
SHOWN = {
    "preflight": "Preflight",
    "data-prep": "Prepare data",
    "register": "Register",
    "run-summary": "Run summary",
}


@pytest.fixture
def server(monkeypatch, tmp_path):
    def reviewed(output: Path, systems: tuple[str, ...]) -> list[Path]:
        output.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copy(GOLDEN / f"{system}.yaml", output)) for system in systems]

    for module in (submit, schedule):
        monkeypatch.setattr(module, "BUILD", tmp_path)
        monkeypatch.setattr(module, "compile_pipelines", reviewed)
    running = KfpServer().start()
    yield running
    running.stop()


def ends(server: KfpServer, *, cached: str, state: str = "SUCCEEDED", shown: bool = False):
    """Every run ends at once; from the second on, ``cached`` comes from the cache."""

    def end(run: dict) -> None:
        again = len(server.runs) > 1
        states = {step: "SKIPPED" if again and step == cached else state for step in STEPS}
        details = [
            {"display_name": SHOWN[step] if shown else step, "state": value} for step, value in states.items()
        ]
        run |= {"state": state, "run_details": {"task_details": details}}

    server.on_run = end


def run(server: KfpServer) -> bool:
    cluster = Cluster(host=server.url)
    return smoke_cluster.smoke(cluster, "", "gs://bucket/smoke", timeout_s=30, every_s=0.05)


@pytest.mark.parametrize("shown", [False, True])
def test_a_good_cluster_passes_every_check(server, gcs_server, capsys, shown):
    """Whether it tells the tasks' own names or those that the UI shows."""
    ends(server, cached="data-prep", shown=shown)
    assert run(server)
    told = capsys.readouterr().out
    assert "FAILED" not in told
    assert told.count("ok      ") == 7
    assert not server.recurring, "the schedule is taken away again"
    given = next(iter(server.runs.values()))["runtime_config"]["parameters"]
    assert given["gpu_count"] == "0"
    assert store_for(given["reviews"]).stat(given["reviews"]).size > 1000


def test_a_cluster_without_a_cache_is_found(server, gcs_server, capsys):
    ends(server, cached="nothing")
    assert not run(server)
    assert "FAILED  its data preparation came from the cache" in capsys.readouterr().out


def test_a_failed_run_ends_the_test_and_names_the_tasks(server, gcs_server, capsys):
    ends(server, cached="nothing", state="FAILED")
    assert not run(server)
    assert "failed tasks: preflight, data-prep" in capsys.readouterr().out
    assert len(server.runs) == 1


def test_a_run_that_never_ends_is_given_up(server, gcs_server):
    with pytest.raises(UserError, match="is PENDING after"):
        smoke_cluster.smoke(Cluster(host=server.url), "", "gs://bucket/s", timeout_s=0.2, every_s=0.05)


def test_a_sample_on_this_machine_is_refused(server, tmp_path):
    with pytest.raises(UserError, match="SMOKE_LOCATION"):
        smoke_cluster.upload_sample(str(tmp_path))
