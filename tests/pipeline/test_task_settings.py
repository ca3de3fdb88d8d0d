"""What every compiled pipeline must hold to run on a cluster that others share and pay for."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components.images import IMAGES
from pipeline.dags import SYSTEMS
from pipeline.task_settings import CREDENTIALS, SETTINGS, STORE_KEYS, USER

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).resolve().parents[2]
GPU_STEPS = {
    "latentr3": {"backbone", "sft", "stage_2", "evaluate"},
    "lares": {"sasrec", "spt", "rpt", "evaluate"},
    "reczero": {"pretrain_rating", "rating_grpo", "evaluate"},
    "recone": {"pretrain_rating", "cold_start_sft", "rating_grpo", "evaluate"},
}
TRAINING_STEPS = {
    "latentr3": {"popularity", "sasrec", "backbone", "sft", "stage_2"},
    "lares": {"popularity", "sasrec", "spt", "rpt"},
    "reczero": {"pretrain_rating", "rating_grpo"},
    "recone": {"pretrain_rating", "cold_start_sft", "rating_grpo"},
}
ONE_GPU = {"evaluate", "pretrain_rating"}
"""GPU steps that can use one accelerator at most, and no further node."""
RESUMABLE = {system: steps | {"traces"} for system, steps in TRAINING_STEPS.items()}
PLAIN_VARIABLES = ("PIPELINE", "STEP", "IMAGE", "IMAGE_DIGEST", "MAX_RESTARTS")
NEVER_CACHED = {"preflight", "evaluate", "register", "run_summary"}


class Compiled:
    """One compiled pipeline, its steps by the name under which they record their status."""

    def __init__(self, system: str, path: Path) -> None:
        self.system, self.text = system, path.read_text(encoding="utf-8")
        self.spec, platform = yaml.safe_load_all(self.text)
        self.executors = self.spec["deploymentSpec"]["executors"]
        self.pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        self.tasks = {}
        for dag in [self.spec["root"], *self.spec["components"].values()]:
            for name, task in dag.get("dag", {}).get("tasks", {}).items():
                label = self.spec["components"][task["componentRef"]["name"]].get("executorLabel")
                if label:
                    self.tasks[self.variables(label)["LATENTREC_STEP"]] = (name, task, label)

    def variables(self, label: str) -> dict[str, str]:
        return {entry["name"]: entry["value"] for entry in self.executors[label]["container"]["env"]}

    def container(self, step: str) -> dict:
        return self.executors[self.tasks[step][2]]["container"]

    def pod(self, step: str) -> dict:
        return self.pods[self.tasks[step][2]]

    @property
    def condition(self) -> tuple[dict, dict]:
        """The part of the pipeline that runs where there is new data: its component, and the task it is."""
        (found,) = [
            (self.spec["components"][task["componentRef"]["name"]], task)
            for component in self.spec["components"].values()
            for task in component.get("dag", {}).get("tasks", {}).values()
            if "triggerPolicy" in task and "condition" in task["triggerPolicy"]
        ]
        return found

    def read_by_condition(self) -> dict:
        """What the tasks inside the condition get from outside it, by the name it has inside."""
        return self.condition[1]["inputs"]["parameters"]

    def steps_with(self, has) -> set[str]:
        return {step for step in self.tasks if has(step)}


@pytest.fixture(params=SYSTEMS)
def compiled(request) -> Compiled:
    """The reviewed copies; another test holds that they are what compiles today."""
    return Compiled(request.param, GOLDEN / f"{request.param}.yaml")


def test_every_step_is_found_once(compiled):
    assert len(compiled.tasks) == len(compiled.executors) == len(compiled.pods)
    assert GPU_STEPS[compiled.system] | TRAINING_STEPS[compiled.system] | NEVER_CACHED <= set(compiled.tasks)


def test_no_image_is_latest_and_all_are_ours(compiled):
    for step in compiled.tasks:
        image = compiled.container(step)["image"]
        name, _, tag = image.rpartition("/")[2].partition(":")
        assert name in IMAGES
        assert tag
        assert tag != "latest"


def test_every_step_has_limits_of_cpu_and_memory(compiled):
    for step in compiled.tasks:
        resources = compiled.container(step)["resources"]
        assert resources["resourceCpuLimit"], step
        assert resources["resourceMemoryLimit"], step


def test_every_step_has_a_timeout(compiled):
    for step in compiled.tasks:
        assert 0 < int(compiled.pod(step)["activeDeadlineSeconds"]) <= 48 * 3600, step


def test_every_step_runs_as_a_numeric_user_that_is_not_root(compiled):
    expected = {"runAsUser": str(USER), "runAsGroup": str(USER), "runAsNonRoot": True}
    for step in compiled.tasks:
        assert compiled.pod(step)["securityContext"] == expected, step


@pytest.mark.parametrize("field", ["nodeSelector", "tolerations"])
def test_gpu_placement_stands_exactly_on_gpu_steps(compiled, field):
    assert compiled.steps_with(lambda step: field in compiled.pod(step)) == GPU_STEPS[compiled.system]


def test_accelerators_are_asked_for_exactly_by_gpu_steps(compiled):
    asked = compiled.steps_with(lambda step: "accelerator" in compiled.container(step)["resources"])
    assert asked == GPU_STEPS[compiled.system]
    for step in asked:
        accelerator = compiled.container(step)["resources"]["accelerator"]
        assert accelerator["resourceType"] == "nvidia.com/gpu"
        expected = "one_gpu" if step in ONE_GPU else "trainer_gpus"
        assert expected in accelerator["resourceCount"], "decided by a run parameter"


def test_gpu_nodes_come_from_preflight(compiled):
    for step in GPU_STEPS[compiled.system]:
        pod = compiled.pod(step)
        (toleration,) = pod["tolerations"]
        read = compiled.read_by_condition()
        for key, source in (
            ("node_selector", pod["nodeSelector"]["nodeSelectorJson"]),
            ("tolerations", toleration["tolerationJson"]),
        ):
            given = read[source["componentInputParameter"]]
            output = key if step in ONE_GPU else f"trainer_{key}"
            assert given["taskOutputParameter"] == {"producerTask": "preflight", "outputParameterKey": output}


def test_an_encoder_trains_on_several_accelerators_where_its_pod_has_them(compiled):
    """LatentR3's SASRec has a pod without: it must not become a TrainJob where the run has several nodes."""
    found = {
        step: task["inputs"]["parameters"]["distributed"]["runtimeValue"]["constant"]
        for step, (_, task, _) in compiled.tasks.items()
        if "distributed" in task.get("inputs", {}).get("parameters", {})
    }
    encoders = {"popularity", "sasrec", "spt"} & set(compiled.tasks)
    assert set(found) == encoders
    assert {step for step in found if found[step]} == (GPU_STEPS[compiled.system] - ONE_GPU) & encoders


def test_everything_that_costs_hangs_on_there_being_new_data(compiled):
    condition, task = compiled.condition
    trigger = task["triggerPolicy"]["condition"]
    content, known = (f"pipelinechannel--{name}" for name in ("data-prep-content", "preflight-known_content"))
    assert content in trigger
    assert "!=" in trigger
    assert known in trigger
    inside = {
        compiled.variables(compiled.spec["components"][name]["executorLabel"])["LATENTREC_STEP"]
        for name in (t["componentRef"]["name"] for t in condition["dag"]["tasks"].values())
    }
    assert set(compiled.tasks) - inside == {"preflight", "data_prep", "run_summary"}


def test_shared_memory_stands_exactly_on_training_steps(compiled):
    def has(step: str) -> bool:
        mounts = compiled.pod(step).get("emptyDirMounts", [])
        return any(
            m["mountPath"] == "/dev/shm" and m["medium"] == "Memory" and m["sizeLimit"] for m in mounts
        )

    assert compiled.steps_with(has) == TRAINING_STEPS[compiled.system]


def test_only_steps_that_resume_are_retried_and_with_backoff(compiled):
    retried = compiled.steps_with(lambda step: "retryPolicy" in compiled.tasks[step][1])
    assert retried == RESUMABLE[compiled.system] & set(compiled.tasks)
    for step in retried:
        policy = compiled.tasks[step][1]["retryPolicy"]
        assert policy["maxRetryCount"] >= 1
        assert policy["backoffFactor"] > 1, step


def test_steps_that_read_the_world_are_never_cached_and_the_others_are(compiled):
    cached = compiled.steps_with(
        lambda step: compiled.tasks[step][1].get("cachingOptions", {}).get("enableCache", False)
    )
    assert cached == set(compiled.tasks) - NEVER_CACHED


def test_nothing_that_changes_from_run_to_run_enters_a_cache_key(compiled):
    for step in set(compiled.tasks) - NEVER_CACHED:
        inputs = json.dumps(compiled.tasks[step][1].get("inputs", {}))
        assert "{{$.pipeline_job" not in inputs, step
        assert not re.search(r"run_id|mlflow", inputs), step


def test_the_run_is_known_from_the_pod_s_label(compiled):
    for step in compiled.tasks:
        (source,) = compiled.pod(step)["fieldPathAsEnv"]
        assert source == {"name": "LATENTREC_RUN_ID", "fieldPath": "metadata.labels['pipeline/runid']"}
        assert compiled.variables(compiled.tasks[step][2])["LATENTREC_PIPELINE"] == compiled.system


def test_settings_and_secrets_are_references(compiled):
    for step in compiled.tasks:
        pod = compiled.pod(step)
        assert [entry["configMapName"] for entry in pod["configMapAsEnv"]] == [SETTINGS]
        assert {entry["secretName"] for entry in pod.get("secretAsEnv", [])} <= {CREDENTIALS, STORE_KEYS}


def test_a_step_is_given_only_the_secrets_that_it_needs(compiled):
    """The webhook's address is the run summary's alone, and it gets no model token."""
    for step in compiled.tasks:
        given = [
            entry for entry in compiled.pod(step).get("secretAsEnv", []) if entry["secretName"] == CREDENTIALS
        ]
        keys = {pair["secretKey"] for entry in given for pair in entry["keyToEnv"]}
        assert keys in ({"notify-url"},) if step == "run_summary" else "notify-url" not in keys, step
        assert all(entry["optional"] for entry in given)


def test_no_secret_value_stands_in_a_pipeline(compiled):
    for step in compiled.tasks:
        names = set(compiled.variables(compiled.tasks[step][2]))
        assert names <= {f"LATENTREC_{name}" for name in PLAIN_VARIABLES}
    assert not re.search(
        r"hf_[A-Za-z0-9]{20}|AIza[\w-]{30}|BEGIN [A-Z ]*PRIVATE KEY|sk-[A-Za-z0-9]{20}", compiled.text
    )


def test_every_step_carries_labels_for_cost(compiled):
    for step in compiled.tasks:
        labels = compiled.pod(step)["podMetadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "latentrec"
        assert (labels["latentrec/system"], labels["latentrec/step"]) == (compiled.system, step)


def test_every_step_has_a_display_name_of_its_own(compiled):
    names = [task["taskInfo"]["name"] for _, task, _ in compiled.tasks.values()]
    assert all(names)
    assert len(set(names)) == len(names)


def test_every_parameter_has_help_in_the_ui(compiled):
    for name, entry in compiled.spec["root"]["inputDefinitions"]["parameters"].items():
        assert len(entry.get("description", "")) > 10, name


def test_a_parameter_that_several_pipelines_have_is_the_same_in_all():
    """What differs between them differs on purpose."""
    meant_otherwise = {"data_split", "data_title_filter", "gpu_count", "gpu_type"}
    found: dict[str, list[dict]] = {}
    for system in SYSTEMS:
        spec = Compiled(system, GOLDEN / f"{system}.yaml").spec
        for name, entry in spec["root"]["inputDefinitions"]["parameters"].items():
            found.setdefault(name, []).append(entry)
    assert {
        name for name, entries in found.items() if entries != entries[:1] * len(entries)
    } == meant_otherwise


def test_data_preparation_s_cache_key_holds_the_content_of_its_inputs(compiled):
    given = compiled.tasks["data_prep"][1]["inputs"]["parameters"]
    for name, output in (("inputs_fingerprint", "inputs_fingerprint"), ("config", "data_prep_config")):
        expected = {"producerTask": "preflight", "outputParameterKey": output}
        assert given[name]["taskOutputParameter"] == expected


def test_changed_content_behind_the_same_name_changes_data_preparation_s_cache_key(gcs_server, monkeypatch):
    from latentrec.steps.preflight import run_preflight
    from latentrec.storage import store_for

    for name in ("MLFLOW_TRACKING_URI", "LATENTREC_STATUS_ROOT", "LATENTREC_CHECKPOINT_ROOT"):
        monkeypatch.delenv(name, raising=False)
    uri = "gs://bucket/reviews.json"
    line = {"reviewerID": "A", "asin": "B", "overall": 5.0, "unixReviewTime": 1}

    def fingerprint(rating: float) -> str:
        store_for(uri).write_bytes(uri, json.dumps({**line, "overall": rating}).encode())
        return run_preflight({"system": "lares", "customer_reviews": uri}).inputs_fingerprint

    first = fingerprint(5.0)
    assert run_preflight({"system": "lares", "customer_reviews": uri}).inputs_fingerprint == first
    assert fingerprint(4.0) != first


def compile_release(tmp_path: Path, lock: dict | None) -> subprocess.CompletedProcess:
    path = tmp_path / "images.lock.json"
    if lock is not None:
        path.write_text(json.dumps(lock))
    settings = {"RELEASE": "1", "IMAGE_LOCK": str(path), "IMAGE_REGISTRY": "eu.example/r", "IMAGE_TAG": "v1"}
    command = [sys.executable, "-m", "pipeline.compile", "--output", str(tmp_path / "out")]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True, check=False
    )


def fixture_lock() -> dict:
    digests = {name: "sha256:" + f"{index:064x}" for index, name in enumerate(IMAGES)}
    return {"registry": "eu.example/r", "digests": digests}


def test_a_release_names_images_only_by_digest(tmp_path):
    lock = fixture_lock()
    done = compile_release(tmp_path, lock)
    assert done.returncode == 0, done.stderr
    for system in SYSTEMS:
        compiled = Compiled(system, tmp_path / "out" / f"{system}.yaml")
        for step in compiled.tasks:
            image, _, digest = compiled.container(step)["image"].partition("@")
            assert digest == lock["digests"][image.rpartition("/")[2]]
            assert compiled.variables(compiled.tasks[step][2])["LATENTREC_IMAGE_DIGEST"] == digest


def test_a_release_without_its_lock_is_refused(tmp_path):
    done = compile_release(tmp_path, None)
    assert done.returncode == 2
    assert "make push" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_release_with_a_lock_that_misses_an_image_is_refused(tmp_path):
    lock = fixture_lock()
    del lock["digests"]["evaluate"]
    done = compile_release(tmp_path, lock)
    assert done.returncode == 2
    assert "'evaluate'" in done.stderr
