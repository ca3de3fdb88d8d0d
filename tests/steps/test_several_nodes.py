"""A step on several nodes: its TrainJob is made or adopted, followed through whatever the API server does,
and its end becomes the step's own."""

import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from latentrec.core.settings import RUN_ID_VARIABLE
from latentrec.steps import launch, several_nodes, train_job_client, train_job_log
from latentrec.steps.kfp_files import result_location, same_in_every_attempt
from latentrec.steps.node_pools import choose_pool
from latentrec.steps.operational import write_operational
from latentrec.steps.pods import KubernetesApi
from latentrec.steps.several_nodes import check_nodes, remove_left_jobs, run_on_nodes
from latentrec.steps.status import StepStatus, read_step_statuses, step_status
from latentrec.steps.step_sizes import choose_sizes
from latentrec.steps.train_job import Nodes, job_name
from latentrec.steps.training_nodes import choose_nodes, trainer_pod
from tests.errors import refused
from tests.fakes.kubernetes_api import serve_pod

NODES = Nodes(2, 1, "8", "32Gi", {"pool": "a100"}, [{"key": "nvidia.com/gpu", "operator": "Exists"}], "gpus")
SOURCE = "def sft(): ...  # $(HOME) stays as it is\n"


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    """A pretended cluster whose pod this process is; nothing waits long."""
    server = serve_pod(monkeypatch, tmp_path)
    monkeypatch.setenv("KFP_POD_NAME", "step-pod")
    monkeypatch.setenv(RUN_ID_VARIABLE, "run-1")
    monkeypatch.setenv("LATENTREC_STEP", "sft")
    monkeypatch.setenv("LATENTREC_STATUS_ROOT", str(tmp_path / "status"))
    monkeypatch.setattr(train_job_client, "WATCH_S", 1)
    monkeypatch.setattr(train_job_log, "SILENT_S", 4)
    made = train_job_client.TrainJobClient.__post_init__

    def quick(self):
        self.pause_s, self.away_s = 0.02, min(self.away_s, 2.0)
        made(self)

    monkeypatch.setattr(train_job_client.TrainJobClient, "__post_init__", quick)
    owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "wf", "uid": "u-wf"}
    field = {"fieldRef": {"fieldPath": "metadata.labels['pipeline/runid']"}}
    server.pods["step-pod"] = {
        "metadata": {
            "name": "step-pod",
            "labels": {
                "latentrec/step": "sft",
                "workflows.argoproj.io/workflow": "wf",
                "pipeline/runid": "run-1",
            },
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
        },
        "spec": {
            "serviceAccountName": "latentrec-steps",
            "containers": [
                {"name": "wait", "image": "argoexec"},
                {
                    "name": "main",
                    "image": "registry/train@sha256:0",
                    "env": [
                        {"name": "LATENTREC_STEP", "value": "sft"},
                        {"name": "LATENTREC_MAX_RESTARTS", "value": "3"},
                        {"name": "ARGO_TEMPLATE", "value": "{}"},
                        {"name": "LATENTREC_RUN_ID", "valueFrom": field},
                        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                    ],
                },
            ],
        },
    }
    server.workflows["wf"] = {"spec": {}}
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def arguments(tmp_path):
    """Of KFP's executor, as the step's process has them."""
    module = tmp_path / "ephemeral_component.py"
    module.write_text(SOURCE)
    # As KFP 2.17 hands them over: the log of its own launcher first, numbered by the attempt.
    made = {
        name: {"artifacts": [{"name": name, "uri": str(tmp_path / place)}]}
        for name, place in (("executor-logs", "executor-logs-0"), ("model", "model"))
    }
    outputs = {"artifacts": made, "outputFile": str(tmp_path / "out" / "output.json")}
    given = {"inputs": {"parameterValues": {}}, "outputs": outputs}
    return [
        *("--component_module_path", str(module)),
        *("--executor_input", json.dumps(given), "--function_to_execute", "sft"),
    ]


@pytest.fixture
def name(arguments):
    return job_name("run-1", "sft", same_in_every_attempt(arguments[2:]))


def start(arguments):
    """``run_on_nodes`` beside the test; a list that holds its exit code once there is one."""
    codes = []
    worker = threading.Thread(target=lambda: codes.append(run_on_nodes(NODES, arguments)), daemon=True)
    worker.start()
    return worker, codes


@pytest.fixture(autouse=True)
def no_signals_in_threads(monkeypatch):
    real = signal.signal
    main = threading.main_thread()
    monkeypatch.setattr(
        several_nodes.signal,
        "signal",
        lambda number, handler: real(number, handler) if threading.current_thread() is main else handler,
    )


def until(true, seconds=10):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def leave_result(arguments, text="{}"):
    given = json.loads(arguments[3])
    with open(result_location(given), "w") as stream:
        json.dump({"sent": [], "output": text}, stream)
    return given


def test_a_job_that_succeeds_is_the_step_s_success(cluster, arguments, name, capfd):
    worker, codes = start(arguments)
    until(lambda: name in cluster.jobs)
    job = cluster.jobs[name]
    cluster.running(name)
    cluster.logs["n0"] = ["2026-11-27T22:00:01.1Z step 1", "2026-11-27T22:00:02.5Z step 2"]
    cluster.add_pod(name, 0, "n0")
    cluster.add_pod(name, 1, "n1")
    until(lambda: sum("/pods/n0/log" in call for call in cluster.calls) > 3)
    given = leave_result(arguments, '{"artifacts": {"model": 1}}')
    cluster.complete(name)
    worker.join(10)
    assert codes == [0]
    assert cluster.jobs == {}, "a job that is done is removed"
    assert json.loads(Path(given["outputs"]["outputFile"]).read_text()) == {"artifacts": {"model": 1}}
    logged = [line for line in capfd.readouterr().err.splitlines() if line.startswith("step ")]
    assert logged == ["step 1", "step 2"], "each line once, however often the log is asked for"
    trainer = job["spec"]["trainer"]
    assert (trainer["image"], trainer["numNodes"], trainer["numProcPerNode"]) == (
        "registry/train@sha256:0",
        2,
        1,
    )
    assert trainer["args"][0] == SOURCE.replace("$", "$$")
    assert trainer["args"][1:] == ["--", *(part.replace("$", "$$") for part in arguments[2:])]
    assert trainer["resourcesPerNode"]["limits"] == {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"}
    variables = {entry["name"]: entry for entry in trainer["env"]}
    assert variables["LATENTREC_RUN_ID"]["value"] == "run-1", "a field of the step's pod, by value"
    assert variables["HF_TOKEN"]["valueFrom"]["secretKeyRef"], "a secret, by reference"
    assert variables["LATENTREC_GPUS"]["value"] == "1"
    assert not {"ARGO_TEMPLATE", "LATENTREC_MAX_RESTARTS"} & set(variables)
    labels = job["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "gpus"
    (owner,) = job["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["controller"]) == ("Workflow", False), "it goes with the run"
    (patch,) = job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = patch["template"]["spec"]["template"]
    assert pod["spec"]["nodeSelector"] == {"pool": "a100"}
    assert pod["spec"]["serviceAccountName"] == "latentrec-steps"
    assert "latentrec/step" not in pod["metadata"]["labels"], "the run summary reads the step's own pod"


@pytest.mark.parametrize("trouble", ["expired", "broken", "away", "silent", "token"])
def test_whatever_the_server_does_the_end_is_heard(cluster, arguments, name, trouble, tmp_path):
    worker, codes = start(arguments)
    until(lambda: name in cluster.jobs)
    if trouble == "expired":
        cluster.expire_watches = 3
    elif trouble == "broken":
        cluster.break_watches = 3
    elif trouble == "away":
        cluster.fail_next = [500, 503, 429, 500]
    elif trouble == "token":
        (tmp_path / "account" / "token").write_text("fresh")
        cluster.token = "fresh"
    else:
        time.sleep(1.2)  # longer than a watch: it ends without news and is taken up again
    cluster.running(name)
    leave_result(arguments)
    until(lambda: not cluster.fail_next and not cluster.expire_watches and not cluster.break_watches)
    with cluster.lock:  # a change that no watcher is told of: it is found by reading the job anew
        watchers, cluster.watchers = cluster.watchers, []
        cluster.complete(name)
        cluster.watchers = watchers
    worker.join(10)
    assert codes == [0]


def test_a_server_that_stays_away_fails_the_step_and_leaves_the_job_to_its_next_attempt(
    cluster, arguments, name, monkeypatch
):
    monkeypatch.setattr(
        several_nodes, "TrainJobClient", lambda api: train_job_client.TrainJobClient(api, away_s=0.1)
    )
    raised = []

    def attempt():
        try:
            run_on_nodes(NODES, arguments)
        except ConnectionError as error:
            raised.append(error)

    worker = threading.Thread(target=attempt, daemon=True)
    worker.start()
    until(lambda: name in cluster.jobs)
    cluster.fail_next = [503] * 1000
    worker.join(15)
    assert "did not answer for 0 s (HTTP 503)" in str(raised[0])
    assert name in cluster.jobs


@pytest.mark.parametrize(("code", "leaves"), [(2, 2), (1, 1)])
def test_a_job_that_fails_fails_the_step_with_the_pod_s_message(
    cluster, arguments, name, code, leaves, caplog
):
    with step_status("sft"):  # what node 0 last said: it only lost its peer
        pass
    root = os.environ["LATENTREC_STATUS_ROOT"]
    (path,) = [os.path.join(folder, file) for folder, _, files in os.walk(root) for file in files]
    lost = StepStatus("sft", "failed", 1.0, 2.0, error="Connection closed by peer")
    with open(path, "w") as stream:
        json.dump(lost.__dict__, stream)
    worker, codes = start(arguments)
    until(lambda: name in cluster.jobs)
    cluster.add_pod(name, 0, "n0", "Failed", code=1, message="Connection closed by peer")
    time.sleep(1.1)
    cluster.add_pod(name, 1, "n1", "Failed", code=code, message="sft.batch_size is 3")
    if code == 1:
        del cluster.pods["n0"]
    cluster.failed(name)
    worker.join(10)
    assert codes == [leaves]
    assert "node 1 (pod n1): sft.batch_size is 3" in caplog.text
    (found,) = read_step_statuses(root, "run-1")
    assert (found.state, found.error) == ("failed", "node 1 (pod n1): sft.batch_size is 3")
    assert cluster.jobs == {}


def test_a_node_lost_on_the_way_is_told_and_named_when_nothing_else_is_left(cluster, arguments, name, caplog):
    worker, codes = start(arguments)
    until(lambda: name in cluster.jobs)
    cluster.add_pod(name, 1, "n1", "Failed", code=137, message="OOM")
    cluster.running(name)
    until(lambda: "node 1 (pod n1): out of memory (limit 32Gi): OOMKilled" in caplog.text)
    cluster.pods.pop("n1")
    cluster.failed(name)
    worker.join(10)
    assert codes == [1]
    (found,) = read_step_statuses(os.environ["LATENTREC_STATUS_ROOT"], "run-1")
    assert found.error == "node 1 (pod n1): out of memory (limit 32Gi): OOMKilled"


def test_memory_that_ran_out_is_named_before_the_node_that_lost_its_peer(cluster, arguments, name):
    worker, codes = start(arguments)
    until(lambda: name in cluster.jobs)
    cluster.add_pod(name, 0, "n0", "Failed", code=1, message="Connection closed by peer")
    time.sleep(1.1)
    # As seen with containerd 1.6: torchrun's worker was killed, torchrun itself left with 1 and a message.
    cluster.add_pod(name, 1, "n1", "Failed", code=1, message="OOM exit code 1, and nothing reported")
    cluster.failed(name)
    worker.join(10)
    assert codes == [1]
    (found,) = read_step_statuses(os.environ["LATENTREC_STATUS_ROOT"], "run-1")
    assert found.error == "node 1 (pod n1): out of memory (limit 32Gi): OOMKilled"


def test_a_second_attempt_adopts_a_job_that_runs_and_replaces_one_that_failed(
    cluster, arguments, name, caplog
):
    caplog.set_level(logging.INFO)
    lost = train_job_client.TrainJobClient(KubernetesApi.from_pod())  # whose pod went after making the job
    job = several_nodes.make_job(NODES, lost.own_pod("step-pod"), arguments)
    assert lost.create_or_adopt(job) == "created"
    second = [part.replace("executor-logs-0", "executor-logs-1") for part in arguments]
    assert second != arguments
    worker, codes = start(second)
    until(lambda: "adopted" in caplog.text)
    given = leave_result(arguments)
    cluster.complete(name)
    worker.join(10)
    assert codes == [0]
    assert Path(given["outputs"]["outputFile"]).exists(), "the job of the first attempt has left it"
    assert lost.create_or_adopt(job) == "created"
    cluster.failed(name)
    third, last = start(arguments)
    until(lambda: "replaced" in caplog.text)
    leave_result(arguments)
    cluster.complete(name)
    third.join(10)
    assert last == [0]


@pytest.mark.parametrize("terminated", [True, False])
def test_a_step_that_is_stopped_ends_its_job_where_the_run_was_terminated(
    cluster, arguments, name, terminated
):
    if terminated:
        cluster.workflows["wf"]["spec"]["activeDeadlineSeconds"] = 0

    def stop():
        until(lambda: name in cluster.jobs and any("watch=" in call for call in cluster.calls))
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    assert run_on_nodes(NODES, arguments) == 143
    assert (name in cluster.jobs) == (not terminated)
    assert remove_left_jobs("run-1") == ([] if terminated else [name]), "the run summary's part"
    assert cluster.jobs == {}


def test_a_job_deleted_by_hand_ends_the_step(cluster, arguments, name, caplog):
    worker, codes = start(arguments)
    until(lambda: name in cluster.jobs)
    cluster.tell("DELETED", cluster.jobs.pop(name))
    worker.join(10)
    assert codes == [1]
    assert f"the TrainJob {name} was deleted" in caplog.text


def test_preflight_asks_without_making_anything(cluster):
    assert check_nodes(NODES) == "2 pods of a TrainJob"
    assert cluster.jobs == {}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"without_trainer": True}, ("HTTP 404", "Trainer 2.2")),
        ({"refuse": "cannot create resource"}, ("HTTP 403", "cannot create resource", "manifests/trainer")),
    ],
)
def test_preflight_names_what_the_cluster_lacks(cluster, change, named):
    vars(cluster).update(change)
    with refused("nodes.refused", *named):
        check_nodes(NODES)


def test_on_one_machine_there_are_no_several_nodes(monkeypatch, arguments):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with refused("nodes.no_cluster", "gpu_nodes", "2"):
        check_nodes(NODES)
    with refused("nodes.no_cluster", "gpu_nodes", "2"):
        run_on_nodes(NODES, arguments)


def test_preflight_plans_a_job_and_a_small_pod_that_follows_it(cluster, monkeypatch, tmp_path):
    """The whole way of ``gpu_nodes``: preflight's outputs for the pod, and what the step then reads."""
    monkeypatch.setenv("LATENTREC_TRAIN_QUEUE", "gpus")
    given = {"system": "latentr3", "gpu_count": "4", "gpu_nodes": 2, "gpu_type": "nvidia-a100-80gb"}
    pool = choose_pool(given)
    nodes = choose_nodes(given, pool, choose_sizes(given)["train"], "gpus")
    assert (nodes.count, nodes.gpus, nodes.cpu, nodes.memory) == (2, 4, "8", "32Gi")
    follower = trainer_pod(nodes)
    assert (follower.size.cpu, follower.gpus, follower.node_selector) == ("1", "0", {})
    write_operational({several_nodes.OPERATIONAL: nodes.to_dict()})
    assert several_nodes.nodes_wanted() == nodes
    alone = trainer_pod(choose_nodes(given | {"gpu_nodes": "1"}, pool, choose_sizes(given)["train"]))
    assert (alone.gpus, alone.node_selector) == ("4", pool.node_selector)
    monkeypatch.delenv("LATENTREC_RUN_ID")
    assert several_nodes.nodes_wanted() == Nodes()


def test_a_step_of_several_nodes_never_trains_in_its_own_pod(cluster, monkeypatch):
    write_operational({several_nodes.OPERATIONAL: NODES.to_dict()})
    monkeypatch.setattr(sys, "argv", ["/venv/kfp/dsl/executor_main.py", "--executor_input", "{}"])
    monkeypatch.setattr(several_nodes, "run_on_nodes", lambda nodes: 7 if nodes == NODES else 1)
    for name in ("RANK", "LATENTREC_WORKER_REPORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as left:
        launch.launch_worker(distributed=True)
    assert left.value.code == 7
    launch.launch_worker(distributed=False)  # a trainer that cannot share its work has its own pod
