"""The manifests: rendered by kubectl, held against Kubernetes' schemas and against the project's policy."""

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from latentrec.steps.kfp_files import MOUNTS
from latentrec.steps.train_job import RUNTIME
from pipeline.task_settings import SETTING_NAMES, SETTINGS, USER

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "manifests"
OVERLAYS = ("local", "gke", "gke-spot")
SCHEMAS = Path(__file__).parent / "schemas"


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request) -> str:
    return request.param


_rendered: dict[str, list[dict]] = {}


@pytest.fixture
def objects(overlay) -> list[dict]:
    """Every object of one overlay, rendered once."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on the PATH")
    if overlay not in _rendered:
        command = ["kubectl", "kustomize", str(MANIFESTS / "overlays" / overlay)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        _rendered[overlay] = list(yaml.safe_load_all(done.stdout))
    return _rendered[overlay]


def problems(found: list[dict], version: str) -> list[str]:
    """What is wrong with objects by the strict schema of a Kubernetes version, or by ours of a CRD."""
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    jsonschema = pytest.importorskip("jsonschema")
    wrong = []
    for entry in found:
        name = f"{entry['kind']}/{entry['metadata']['name']}"
        try:
            validate.validate(entry, version, strict=True)
        except validate.SchemaNotFoundError:
            file = SCHEMAS / f"{entry['kind'].lower()}_{entry['apiVersion'].replace('/', '_')}.json"
            if not file.is_file():
                wrong.append(f"{name}: no schema of Kubernetes, and none in {file.name}")
                continue
            checker = jsonschema.Draft7Validator(json.loads(file.read_text()))
            wrong += [f"{name}: {error.message}" for error in checker.iter_errors(entry)]
        except validate.ValidationError as error:
            wrong.append(f"{name}: {error.message}")
    return wrong


def last_three_minors() -> list[str]:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    newest = validate.latest_version().split(".")
    return [f"{newest[0]}.{int(newest[1]) - back}" for back in range(3)]


@pytest.mark.parametrize("back", range(3))
def test_every_object_is_valid_in_the_last_three_minors_of_kubernetes(objects, back):
    assert problems(objects, last_three_minors()[back]) == []


def test_a_misspelt_field_is_found(objects):
    broken = json.loads(json.dumps(objects))
    pod(next(entry for entry in broken if entry["kind"] == "Deployment"))["securityContexts"] = {}
    assert any("securityContexts" in line for line in problems(broken, last_three_minors()[0]))


def test_a_kind_without_a_schema_is_found(objects):
    unknown = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "x"}}
    assert problems([*objects, unknown], last_three_minors()[0]) == [
        "Widget/x: no schema of Kubernetes, and none in widget_example.com_v1.json"
    ]


def test_a_misspelt_field_of_a_custom_kind_is_found():
    entry = yaml.safe_load((MANIFESTS / "overlays/gke/compute-class.yaml").read_text())
    assert problems([entry], last_three_minors()[0]) == []
    entry["spec"]["priorities"][0]["spott"] = True
    assert any("spott" in line for line in problems([entry], last_three_minors()[0]))


def test_what_training_on_several_nodes_adds():
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on the PATH")
    command = ["kubectl", "kustomize", str(MANIFESTS / "trainer")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = {entry["kind"]: entry for entry in yaml.safe_load_all(done.stdout)}
    known = [entry for kind, entry in found.items() if kind != "ClusterTrainingRuntime"]
    assert problems(known, last_three_minors()[0]) == []
    runtime = found["ClusterTrainingRuntime"]
    assert runtime["metadata"]["name"] == RUNTIME
    (job,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    node = job["template"]["spec"]
    # The pods of a node, as Kubernetes' own Job would have them.
    plain = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "node"}, "spec": node}
    assert problems([plain], last_three_minors()[0]) == []
    spec = node["template"]["spec"]
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["runAsNonRoot"]) == (USER, True)
    assert spec["priorityClassName"] == found["PriorityClass"]["metadata"]["name"]
    assert found["PriorityClass"]["value"] >= 0, "JobSet makes it a label, which cannot begin with a minus"
    assert {mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]} >= set(MOUNTS.values())
    assert set(found["Role"]["rules"][0]["verbs"]) == {"create", "get", "list", "watch", "delete"}


def test_the_roll_out_may_make_and_change_services_and_delete_none():
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on the PATH")
    command = ["kubectl", "kustomize", str(MANIFESTS / "serving")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = {entry["kind"]: entry for entry in yaml.safe_load_all(done.stdout)}
    assert problems([*found.values()], last_three_minors()[0]) == []
    services, deployments = found["Role"]["rules"]
    assert (services["apiGroups"], services["resources"]) == (["serving.kserve.io"], ["inferenceservices"])
    assert set(services["verbs"]) == {"create", "get", "patch"}
    assert (deployments["resources"], deployments["verbs"]) == (["deployments"], ["get"])
    (account,) = found["RoleBinding"]["subjects"]
    assert account["name"] == "latentrec-steps"


def pod(entry: dict) -> dict:
    spec = entry["spec"]["jobTemplate"]["spec"] if entry["kind"] == "CronJob" else entry["spec"]
    return spec["template"]["spec"]


def workloads(objects: list[dict]) -> list[dict]:
    kinds = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")
    found = [entry for entry in objects if entry["kind"] in kinds]
    assert {entry["metadata"]["name"] for entry in found} == {
        "mlflow",
        "mlflow-database",
        "latentrec-cleanup",
    }
    return found


def containers(objects: list[dict]) -> list[dict]:
    return [container for entry in workloads(objects) for container in pod(entry)["containers"]]


def test_nothing_runs_as_root(objects):
    for entry in workloads(objects):
        context = pod(entry)["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(objects):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "runAsUser" not in context, "the pod's is meant"


def test_mlflow_runs_as_the_user_of_our_images(objects):
    (entry,) = [entry for entry in workloads(objects) if entry["metadata"]["name"] == "mlflow"]
    assert pod(entry)["securityContext"]["runAsUser"] == USER


def test_every_container_has_limits_and_requests(objects):
    for container in containers(objects):
        for kind in ("limits", "requests"):
            assert set(container["resources"][kind]) >= {"cpu", "memory"}


def test_every_container_that_serves_has_probes(objects):
    for entry in workloads(objects):
        for container in pod(entry)["containers"] if entry["kind"] != "CronJob" else []:
            assert container["livenessProbe"]
            assert container["readinessProbe"]


def test_the_nightly_clean_up_is_a_command_line_that_we_have(objects, tmp_path, capsys):
    """It runs as written, on a checkpoint root of its own; what is in use stays."""
    from latentrec import cli
    from latentrec.storage.checkpoints import CheckpointStore

    (job,) = [entry for entry in objects if entry["kind"] == "CronJob"]
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    (container,) = pod(job)["containers"]
    assert container["image"].rpartition(":")[0].endswith("/data-prep"), "it needs no training library"
    (variable,) = [entry for entry in container["env"] if entry["name"] == "LATENTREC_CHECKPOINT_ROOT"]
    assert variable["valueFrom"]["configMapKeyRef"] == {"name": SETTINGS, "key": "LATENTREC_CHECKPOINT_ROOT"}
    works = {}
    for name, age_s in (("old", 40 * 86_400), ("new", 0)):
        store = CheckpointStore(str(tmp_path / name), {"step": name})
        store.acquire()
        made = tmp_path / "made"
        made.mkdir(exist_ok=True)
        (made / "weights").write_bytes(b"w" * 1000)
        store.save(made, 1, metadata={})
        os.utime(tmp_path / name / "index.json", (time.time() - age_s,) * 2)
        works[name] = tmp_path / name
    words = [*container["command"], *container["args"]]
    assert words[0] == "latentrec"
    cli.main([word.replace("$(LATENTREC_CHECKPOINT_ROOT)", str(tmp_path)) for word in words[1:]])
    assert "removed" in capsys.readouterr().out
    assert not list(works["old"].rglob("weights"))
    assert len(list(works["new"].rglob("weights"))) == 1


def test_every_image_has_a_tag_that_is_not_latest(objects):
    for container in containers(objects):
        name, _, tag = container["image"].rpartition(":")
        assert name
        assert re.match(r"^[\w.-]+$", tag)
        assert tag != "latest"


def test_roles_name_what_they_allow(objects):
    roles = [entry for entry in objects if entry["kind"] in ("Role", "ClusterRole")]
    assert roles
    for role in roles:
        assert role["kind"] == "Role", "nothing of ours reaches beyond its namespace"
        for rule in role["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]


def test_steps_may_do_what_kfp_and_the_run_summary_need_and_nothing_more(objects):
    """KFP's own store has its keys in a Secret; its driver asks for the workflow; the rest only reads."""
    (role,) = [entry for entry in objects if entry["kind"] == "Role"]
    allowed = {
        (rule["apiGroups"][0], resource, verb, *rule.get("resourceNames", []))
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert allowed == {
        ("", "pods", "get"),
        ("", "pods", "list"),
        ("", "configmaps", "get", "kfp-launcher"),
        ("", "secrets", "get", "mlpipeline-minio-artifact"),
        ("argoproj.io", "workflows", "get"),
        ("argoproj.io", "workflowtaskresults", "create"),
        ("argoproj.io", "workflowtaskresults", "patch"),
    }


def test_secrets_are_references_only(objects):
    assert not [entry for entry in objects if entry["kind"] == "Secret"]
    for container in containers(objects):
        for variable in container["env"]:
            if re.search(r"PASSWORD|TOKEN|KEY|SECRET", variable["name"]):
                assert set(variable["valueFrom"]) == {"secretKeyRef"}, variable["name"]
            assert not re.search(r"//[^/:@]+:[^$@]+@", variable.get("value", "")), "no password in an address"


def test_settings_are_those_that_the_steps_read(objects, overlay):
    (settings,) = [
        entry for entry in objects if entry["kind"] == "ConfigMap" and entry["metadata"]["name"] == SETTINGS
    ]
    assert set(settings["data"]) <= set(SETTING_NAMES)
    assert (
        settings["data"]["LATENTREC_MLFLOW_TRACKING_URI"] == "http://mlflow.latentrec.svc.cluster.local:5000"
    )
    of_one_machine = {"LATENTREC_S3_ENDPOINT", "LATENTREC_ALLOW_LOCAL_IMAGES"}
    expected = set(SETTING_NAMES) if overlay == "local" else set(SETTING_NAMES) - of_one_machine
    assert set(settings["data"]) == expected, "every overlay sets every root: preflight refuses a run without"


def test_the_database_is_reached_by_mlflow_only(objects):
    policies = {
        entry["metadata"]["name"]: entry["spec"] for entry in objects if entry["kind"] == "NetworkPolicy"
    }
    (rule,) = policies["mlflow-database"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "mlflow"}}}]
    assert "mlflow" in policies


def test_accounts_on_gke_are_bound_by_workload_identity(objects, overlay):
    accounts = {entry["metadata"]["name"]: entry for entry in objects if entry["kind"] == "ServiceAccount"}
    assert set(accounts) == {"latentrec-steps", "latentrec-serving", "mlflow"}
    bound = [name for name, entry in accounts.items() if "annotations" in entry["metadata"]]
    assert bound == ([] if overlay == "local" else list(accounts))


def test_spot_is_for_gpu_steps_and_never_for_what_serves(objects, overlay):
    for entry in objects:
        if entry["kind"] == "ComputeClass":
            assert {rule["spot"] for rule in entry["spec"]["priorities"]} == {overlay == "gke-spot"}
    if overlay == "gke-spot":
        for entry in workloads(objects):
            required = pod(entry)["affinity"]["nodeAffinity"][
                "requiredDuringSchedulingIgnoredDuringExecution"
            ]
            (term,) = required["nodeSelectorTerms"]
            assert term["matchExpressions"] == [
                {"key": "cloud.google.com/gke-spot", "operator": "DoesNotExist"}
            ]


def test_the_namespace_has_a_quota_and_every_container_a_limit(objects):
    (quota,) = [entry for entry in objects if entry["kind"] == "ResourceQuota"]
    assert {"limits.cpu", "limits.memory", "requests.nvidia.com/gpu"} <= set(quota["spec"]["hard"])
    (limits,) = [entry for entry in objects if entry["kind"] == "LimitRange"]
    (container,) = limits["spec"]["limits"]
    assert container["type"] == "Container"
    assert set(container["default"]) == set(container["defaultRequest"]) == {"cpu", "memory"}


def test_mlflow_names_the_database_driver_that_its_image_has(objects):
    """``postgresql://`` means psycopg 3 since SQLAlchemy 2.1; the image carries psycopg2."""
    from sqlalchemy.engine import make_url

    (entry,) = [entry for entry in workloads(objects) if entry["metadata"]["name"] == "mlflow"]
    (container,) = pod(entry)["containers"]
    (uri,) = [env["value"] for env in container["env"] if env["name"] == "MLFLOW_BACKEND_STORE_URI"]
    driver = make_url(uri.replace("$(DATABASE_PASSWORD)", "x")).get_dialect().driver
    locked = (ROOT / "docker/requirements/mlflow.txt").read_text(encoding="utf-8")
    assert re.search(rf"^{driver}(-binary)?==", locked, re.MULTILINE), f"{uri} needs {driver}"


def test_what_the_api_server_fills_in_or_drops_is_written_that_way(objects):
    """Else `kubectl apply` reports a change every time (seen on Kubernetes 1.34), and hides a real one."""
    for entry in objects:
        for claim in entry["spec"].get("volumeClaimTemplates", []) if entry["kind"] == "StatefulSet" else []:
            assert {"apiVersion", "kind", "status"} <= set(claim)
            assert "volumeMode" in claim["spec"]
        if entry["kind"] == "NetworkPolicy":
            assert all(entry["spec"].get(way) != [] for way in ("ingress", "egress"))
