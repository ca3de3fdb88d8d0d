"""What a pod of a TrainJob does around torchrun: artifacts in, outputs out, a last message for Kubernetes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from latentrec.steps import kfp_files
from latentrec.steps.kfp_files import RESULT_SUFFIX, fetch, fetch_outputs, send_outputs
from latentrec.storage import ArtifactWriter, read_manifest, store_for, upload_directory
from tests.errors import refused

ROOT = Path(__file__).resolve().parents[2]
COMPONENT = """
from kfp import dsl

def sft(model: dsl.Output[dsl.Model], how: str = "well") -> None:
    import os
    from pathlib import Path
    import torch.distributed as dist
    from latentrec.core import UserError
    from latentrec.steps.status import exit_code_on_error
    from latentrec.training.common.world import leave_process_group

    with exit_code_on_error():
        if how == "badly":
            raise UserError("sft.batch_size is 3")
        if how == "killed":
            os.kill(os.getpid(), 9)
        dist.init_process_group("gloo")
        told = [None] * dist.get_world_size()
        dist.all_gather_object(told, os.environ["RANK"])
    leave_process_group()
    if os.environ["RANK"] != "0":
        raise SystemExit(0)
    Path(model.path).write_text("".join(told) + os.environ["LATENTREC_TEST"])
    model.metadata["ranks"] = len(told)
"""


@pytest.fixture
def here(monkeypatch, tmp_path):
    """KFP's folders below the test's own; each call is another pod."""

    def pod(name):
        folders = {scheme: str(tmp_path / name / scheme) for scheme in ("gs", "minio", "s3")}
        monkeypatch.setattr(kfp_files, "MOUNTS", folders)
        return tmp_path / name

    return pod


def made(path, content="weights"):
    with ArtifactWriter(path, "model", {"a": 1}, {}) as artifact:
        (artifact.path / "weights.txt").write_text(content)
    return path


def given(tmp_path):
    outputs = {"model": {"artifacts": [{"uri": "gs://bucket/run/model"}]}}
    outputs["report"] = {"artifacts": [{"uri": "gs://bucket/run/report"}]}
    return {"outputs": {"artifacts": outputs, "outputFile": str(tmp_path / "kfp" / "output.json")}}


def test_inputs_stand_where_kfp_would_have_put_them(gcs_server, here, tmp_path):
    upload_directory(made(tmp_path / "made"), "gs://bucket/run/dataset")
    store_for("gs://bucket").write_bytes("gs://bucket/run/traces", b"{}\n")
    pod = here("node-1")
    fetch("gs://bucket/run/dataset")
    fetch("gs://bucket/run/traces")
    assert read_manifest(pod / "gs/bucket/run/dataset").kind == "model"
    assert (pod / "gs/bucket/run/traces").read_bytes() == b"{}\n"
    with refused("manifest.not_found", "gs://bucket/run/none"):
        fetch("gs://bucket/run/none")


def test_outputs_of_the_first_node_reach_the_step_and_its_result_comes_last(gcs_server, here, tmp_path):
    node, step = here("node-0"), given(tmp_path)
    made(node / "gs/bucket/run/model")
    (node / "gs/bucket/run/report").write_text("<html>")
    output = Path(step["outputs"]["outputFile"])
    output.parent.mkdir()
    output.write_text('{"done": true}')
    send_outputs(step)
    output.unlink()
    pod = here("step")
    fetch_outputs(step)
    assert (pod / "gs/bucket/run/model/weights.txt").read_text() == "weights"
    assert (pod / "gs/bucket/run/report").read_text() == "<html>"
    assert output.read_text() == '{"done": true}'
    fetch_outputs(step)  # a step's next attempt finds all of it again
    store_for("gs://bucket").delete(f"gs://bucket/run/model{RESULT_SUFFIX}")
    with refused("nodes.no_result", f"gs://bucket/run/model{RESULT_SUFFIX}"):
        fetch_outputs(step)


def test_a_restarted_job_replaces_what_the_first_one_sent(gcs_server, here, tmp_path):
    node, step = here("node-0"), given(tmp_path)
    Path(step["outputs"]["outputFile"]).parent.mkdir()
    Path(step["outputs"]["outputFile"]).write_text("{}")
    for content in ("first", "second"):
        made(node / "gs/bucket/run/model", content)
        send_outputs(step)
    pod = here("step")
    fetch_outputs(step)
    assert (pod / "gs/bucket/run/model/weights.txt").read_text() == "second"


def test_an_unknown_store_is_named(here):
    here("node-0")
    with refused("storage.bad_uri", "oci://x/y"):
        fetch("oci://x/y")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def node(tmp_path, how, rank=0, **variables):
    model = {"artifacts": [{"name": "model", "uri": str(tmp_path / "model")}]}
    step = {
        "inputs": {"parameterValues": {"how": how}},
        "outputs": {"artifacts": {"model": model}, "outputFile": str(tmp_path / "out" / "output.json")},
    }
    script = (
        "import sys\nfrom pathlib import Path\nfrom latentrec.steps import node_process\n"
        f"node_process.TERMINATION_LOG = Path({str(tmp_path / 'message')!r})\nnode_process.main(sys.argv[1:])"
    )
    environment = {
        **os.environ,
        "PET_NNODES": "1",
        "PET_NPROC_PER_NODE": "2",
        "PET_NODE_RANK": str(rank),
        "OMP_NUM_THREADS": "1",
        "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": str(free_port()),
        "LATENTREC_TEST": "!",
        "PYTHONPATH": str(ROOT),
        "LATENTREC_STATUS_ROOT": "",
        **variables,
    }
    executor = ["--executor_input", json.dumps(step), "--function_to_execute", "sft"]
    command = [sys.executable, "-c", script, COMPONENT, "--", *executor]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    return done, step


def test_a_node_runs_kfp_s_executor_in_every_process(tmp_path):
    done, _ = node(tmp_path, "well")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model").read_text() == "01!"
    kept = json.loads(json.loads(Path(f"{tmp_path / 'model'}{RESULT_SUFFIX}").read_text())["output"])
    assert kept["artifacts"]["model"]["artifacts"][0]["metadata"] == {"ranks": 2.0}
    assert not (tmp_path / "message").exists()


@pytest.mark.parametrize(
    ("how", "code", "message"),
    [("badly", 2, "UserError: sft.batch_size is 3"), ("killed", 1, "nothing reported")],
)
def test_a_node_that_fails_leaves_its_exit_code_and_its_message(tmp_path, how, code, message):
    done, _ = node(tmp_path, how)
    assert done.returncode == code, done.stderr
    assert message in (tmp_path / "message").read_text()


def test_fewer_accelerators_than_promised_is_bad_input_before_anything_is_fetched(tmp_path):
    done, _ = node(tmp_path, "well", LATENTREC_GPUS="8")
    assert done.returncode == 2
    assert "promised 8 accelerator(s) and sees 0" in (tmp_path / "message").read_text()
