"""The whole LatentR³ pipeline in real containers, twice: through KFP's DockerRunner, and as on a cluster.

The second run goes from object storage to object storage with KFP's launcher played around each container,
and its SFT container is killed after a checkpoint: KFP's own retry must end with the first run's weights.
"""

import hashlib
import importlib
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from kfp import components as kfp_components
from kfp import dsl

from latentrec.steps.status import read_step_statuses
from latentrec.storage import join, store_for
from pipeline import containers
from pipeline.compile import compile_pipelines
from pipeline.containers import container_runner, container_user, hardened, passed_on, run_and_wait
from pipeline.dags import parse_parameters
from pipeline.latentr3 import STEPS
from pipeline.local_runner import Outcome, RunFolders, run_pipeline
from tests.containers.conftest import World, image_named
from tests.containers.inside import probed
from tests.containers.launcher import Launcher, launcher_around_each_container
from tests.pipeline.runs import ROOT

pytestmark = pytest.mark.containers

PARAMETERS = (
    "sft_backbone=micro data_k_core=2 sft_num_train_epochs=2 sft_batch_size=16 sasrec_num_train_epochs=2 "
    "title_objective.num_train_epochs=0.1 "
    "eval_beam_width=5 gpu_count=0 sft.max_train_samples=256 sft.validation_samples=64 "
    "sft.ranking_samples=16 sft.save_steps=4 "
    "title_objective.max_steps=2 evaluate.n_resamples=100 "
    "evaluate.cost_samples=0 evaluate.max_users=20 evaluate.example_users=2"
)


def parameters(world: World) -> dict:
    return parse_parameters("latentr3", PARAMETERS) | {
        "customer_reviews": world.reviews,
        "data_metadata": world.metadata,
    }


@dataclass
class Tracked:
    """What a run left behind."""

    outcome: Outcome
    log: str
    inside: list[dict] = field(default_factory=list)


@pytest.fixture(scope="module")
def first(world, tmp_path_factory) -> Tracked:
    """The whole DAG through KFP's DockerRunner: artifacts in mounted folders, all else in object storage."""
    folders = RunFolders(tmp_path_factory.mktemp("runs"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATENTREC_CHECKPOINT_ROOT", "gs://bucket/checkpoints-1")
        patch.setattr(
            containers,
            "run_and_wait",
            lambda client, image, command, *rest, **more: run_and_wait(
                client, image, probed(command), *rest, **more
            ),
        )
        with container_runner(folders, inputs=[world.reviews]) as runner:
            outcome = run_pipeline("latentr3", parameters(world), folders, runner=runner)
    log = folders.log(outcome.run_id).read_text()
    inside = [json.loads(line) for line in re.findall(r"INSIDE (\{.*\})", log)]
    return Tracked(outcome, log, inside)


def test_every_step_of_the_dag_succeeds_in_its_own_container(first):
    assert first.outcome.succeeded, first.log[-6000:]
    assert sorted(status.step for status in first.outcome.statuses) == sorted(STEPS)
    assert len(first.inside) == len(STEPS) + 1, "each step and the run summary"


def test_every_container_found_itself_locked_down(first):
    """Each has asserted it before its step began (tests/containers/inside.py); this is what they told."""
    for found in first.inside:
        assert found["uid"] == int(container_user().partition(":")[0]) != 0
        assert (found["root"], found["tmp"], found["capabilities"]) == ("read-only", "tmpfs", 0)
        assert found["write"]["/tmp"] == "writable"
        assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", found["git_sha"])


def test_a_scheduled_run_without_new_data_stops_before_training(first, world, tmp_path):
    """Another day ends the window, as a schedule gives it, and yet the events are those of the first run."""
    folders = RunFolders(tmp_path / "runs")
    given = parameters(world) | {"data_only_new": True, "data_cutoff": "2035-01-01T03:00:00Z"}
    with container_runner(folders) as runner:
        outcome = run_pipeline("latentr3", given, folders, runner=runner)
    assert outcome.succeeded
    assert [status.step for status in outcome.statuses] == ["preflight", "data_prep"]
    known = outcome.details("preflight")["known_content"]
    assert len(known) == 64
    summary = next(folders.root.rglob("run-summary/summary")).read_text()
    assert "succeeded" in summary.splitlines()[0]
    assert "**Nothing new**" in summary


def test_artifacts_between_steps_belong_to_the_images_user(first):
    dataset = Path(first.outcome.details("data_prep")["output"])
    assert (dataset / "manifest.json").stat().st_uid == int(container_user().partition(":")[0])


def test_figures_are_in_mlflow_and_artifacts_in_object_storage(first, world):
    name = first.outcome.details("preflight")["model_name"]
    code = (
        "import json, mlflow, sys\n"
        "client = mlflow.MlflowClient()\n"
        "runs = client.search_runs([e.experiment_id for e in client.search_experiments()],"
        f" \"tags.`pipeline.run_id` = '{first.outcome.run_id}'\")\n"
        "steps = {r.data.tags.get('latentrec.step'): r for r in runs}\n"
        f"version = client.get_model_version_by_alias({name!r}, 'challenger')\n"
        "states = sorted({r.info.status for r in runs})\n"
        "print(json.dumps({'steps': sorted(filter(None, steps)), 'states': states,"
        " 'figures': sorted(steps['sft'].data.metrics), 'artifacts': steps['sft'].info.artifact_uri,"
        " 'version': version.version}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert told["steps"] == sorted(STEPS)
    assert (told["states"], told["version"]) == (["FINISHED"], "1")
    assert any("loss" in name for name in told["figures"])
    assert told["artifacts"].startswith("gs://bucket/mlflow/")
    stored = {info.uri for info in store_for("gs://bucket").list(told["artifacts"] + "/")}
    assert any(uri.endswith("config.json") for uri in stored)
    assert any(store_for("gs://bucket").list("gs://bucket/checkpoints-1/"))


@dataclass
class KilledOnce:
    """Runs containers; kills that of one step, the first time, as soon as it has saved a checkpoint."""

    world: World
    step: str
    checkpoints: str
    codes: list[int] = field(default_factory=list)
    saved: list[str] = field(default_factory=list)
    asked_before: int = 0

    def __call__(self, image, command, volumes, environment) -> int:
        told = passed_on(os.environ) | environment
        arguments = {"environment": told, **hardened(container_user())}
        if environment.get("LATENTREC_STEP") != self.step:
            return run_and_wait(self.world.client, image, command, volumes, **arguments)
        if self.codes:
            self.codes.append(run_and_wait(self.world.client, image, command, volumes, **arguments))
            return self.codes[-1]
        before = self.published()
        container = self.world.client.containers.run(
            image, command, detach=True, volumes=volumes, **arguments
        )
        end = time.monotonic() + 300
        while time.monotonic() < end and not self.saved:
            self.saved = sorted(self.published() - before)
            time.sleep(0.05)
        container.kill(signal="SIGKILL")
        self.codes.append(int(container.wait()["StatusCode"]))
        container.remove(force=True)
        self.asked_before = len(self.world.store.requests)
        return self.codes[-1]

    def published(self) -> set[str]:
        """Locations of the checkpoints that a step which starts now would find: those that an index lists."""
        store = store_for(self.checkpoints)
        uris = [info.uri for info in store.list(self.checkpoints + "/") if info.uri.endswith("/index.json")]
        return {
            join(uri.rpartition("/")[0], entry["id"])
            for uri in uris
            for entry in json.loads(store.read_bytes(uri))["checkpoints"]
        }


@dataclass
class Second:
    """The run that was killed once."""

    launcher: Launcher
    killed: KilledOnce
    run_id: str


@pytest.fixture(scope="module")
def second(world, tmp_path_factory) -> Second:
    """The compiled YAML from object storage to object storage, its SFT container killed once."""
    folder = tmp_path_factory.mktemp("launcher")
    (path,) = compile_pipelines(folder, ("latentr3",))
    killed = KilledOnce(world, "sft", "gs://bucket/checkpoints-2")
    launcher = Launcher("gs://bucket/pipelines", folder / "pods", killed)
    run_id = "latentr3-launched"
    told = {"LATENTREC_CHECKPOINT_ROOT": killed.checkpoints, "LATENTREC_RUN_ID": run_id}
    text = re.sub(r"backoffDuration: \d+s", "backoffDuration: 1s", path.read_text(encoding="utf-8"))
    text = text.replace(
        dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER, "2026-01-05T03:00:00Z"
    )  # KFP's backend
    spec, _ = yaml.safe_load_all(text)
    pipeline = kfp_components.load_component_from_text(yaml.safe_dump(spec))
    with pytest.MonkeyPatch.context() as patch, launcher_around_each_container(launcher):
        for name, value in (told | {"LATENTREC_PIPELINE": "latentr3"}).items():
            patch.setenv(name, value)
        pipeline(**parameters(world))
    return Second(launcher, killed, run_id)


def test_launched_run_goes_from_object_storage_to_object_storage(second, world):
    statuses = read_step_statuses("gs://bucket/status", second.run_id)
    assert sorted(status.step for status in statuses) == sorted(STEPS)
    assert {status.state for status in statuses} == {"succeeded"}
    names = {info.uri for info in store_for("gs://bucket").list("gs://bucket/pipelines/")}
    for artifact in ("data-prep/dataset/manifest.json", "stage-2/model/model.json", "evaluate/report"):
        assert any(name.endswith(artifact) for name in names), artifact
    assert len(second.launcher.launched) == len(STEPS) + 2, "each step, the killed one again, the summary"


def test_killed_training_resumes_and_ends_with_the_undisturbed_weights(first, second):
    assert second.killed.codes == [137, 0]
    assert second.killed.saved, "it was killed before it had saved anything"
    undisturbed = weights(first.outcome.details("sft")["output"])
    status = {s.step: s for s in read_step_statuses("gs://bucket/status", second.run_id)}["sft"]
    uploaded = "gs://" + status.details["output"].removeprefix("/gcs/")
    store = store_for(uploaded)
    resumed = {
        name: hashlib.sha256(store.read_bytes(join(uploaded, name))).hexdigest() for name in undisturbed
    }
    assert undisturbed
    assert resumed == undisturbed


def test_retry_read_the_checkpoint_that_the_killed_container_had_left(second, world):
    asked = world.store.requests[second.killed.asked_before :]
    read = [path for method, path in asked if method == "GET" and "alt=media" in path]
    left = [uri.removeprefix("gs://bucket/") for uri in second.killed.saved]
    assert any(quote(f"{name}/", safe="") in path for name in left for path in read)


def weights(directory: str) -> dict[str, str]:
    """Hash of each weight file of a model directory."""
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(directory).rglob("*.safetensors"))
    }


def test_two_processes_train_in_one_container(first, world, tmp_path):
    """The component's own command, told to take two processes: torchrun, gloo, one step of outputs."""
    dataset = first.outcome.details("data_prep")["output"]
    output = tmp_path / "out"
    containers.give_to_containers(output)
    command = compiled_command("sft")
    given = {
        "inputs": {
            "parameterValues": {
                "config": {
                    "backbone": "micro",
                    "num_train_epochs": 1,
                    "batch_size": 16,
                    "max_train_samples": 256,
                    "validation_samples": 64,
                    "ranking_samples": 16,
                    "save_steps": 4,
                }
            },
            "artifacts": {"dataset": artifact("dataset", dataset, "system.Dataset")},
        },
        "outputs": {
            "artifacts": {
                "model": artifact("model", f"{output}/model", "system.Model"),
                "report": artifact("report", f"{output}/report", "system.HTML"),
            },
            "outputFile": f"{output}/executor_output.json",
        },
    }
    command[command.index("--executor_input") + 1] = json.dumps(given)
    volumes = {
        str(output): {"bind": str(output), "mode": "rw"},
        dataset: {"bind": dataset, "mode": "ro"},
    }
    container = world.client.containers.run(
        image_named("train"),
        probed(command),
        detach=True,
        volumes=volumes,
        environment=world.environment | {"LATENTREC_PROCESSES": "2"},
        **hardened(container_user()),
    )
    code = container.wait()["StatusCode"]
    log = container.logs().decode("utf-8", "replace")
    container.remove(force=True)
    assert code == 0, log[-4000:]
    assert "launching 2 processes through torchrun" in log
    assert json.loads((output / "model" / "model.json").read_text())["metrics"]
    written = json.loads((output / "executor_output.json").read_text())
    assert written["artifacts"]["model"]["artifacts"][0]["metadata"]["fingerprint"]
    assert log.count("Looking for component") >= 2, "each process is KFP's executor"


def artifact(name: str, uri: str, kind: str) -> dict:
    return {"artifacts": [{"name": name, "uri": uri, "type": {"schemaTitle": kind}, "metadata": {}}]}


def compiled_command(step: str) -> list[str]:
    """A step's command as it stands in the compiled pipeline."""
    component = getattr(importlib.import_module(f"components.{step}.component"), step)
    executors = component.pipeline_spec.deployment_spec["executors"]
    container = next(iter(executors.values()))["container"]
    return [str(word) for word in (*container["command"], *container["args"])]


def test_a_step_that_fails_in_its_container_fails_the_run(world, tmp_path):
    """Through the command of `make run RUNNER=docker`, with a folder of its own for everything."""
    lines = next(world.folder.glob("*reviews*")).read_text().splitlines()
    lines[500] = lines[500].replace('"overall": ', '"overall": "five", "was": ')
    broken = tmp_path / "broken.json"
    broken.write_text("\n".join(lines))
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "LATENTREC_"))}
    command = [sys.executable, "-m", "pipeline.run_local", "--runner", "docker", "--reviews", str(broken)]
    command += ["--metadata", str(next(world.folder.glob("*meta*")))]
    done = subprocess.run(
        [*command, "--params", PARAMETERS],
        cwd=ROOT,
        env={**clean, "RUNS_DIR": str(tmp_path / "runs")},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    told = done.stdout + done.stderr
    assert done.returncode == 2, told[-4000:]
    assert re.search(r"^FAILED +step 'data_prep': ", told, re.M)
    assert "line 501" in told
    summary = next((tmp_path / "runs").rglob("run-summary/summary")).read_text()
    assert "**data_prep** met bad input" in summary
    assert "| stage_2 | – |" in summary
