"""Batch scoring by several pods: KFP runs it, a shard that is killed is tried again, and no byte differs."""

import json
import threading
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import yaml

from latentrec.steps.batch_scoring import batch_score
from latentrec.steps.score_shards import Shard, in_order, merge_files
from latentrec.steps.scoring_parameters import check_scoring
from latentrec.steps.scoring_steps import run_list_shards_step
from latentrec.tracking.run_context import RunContext
from latentrec.tracking.runs import RunTree
from pipeline.run_local import main as make_run
from pipeline.submit import checked_parameters
from tests.errors import refused
from tests.fakes.kfp.compiled import Pipeline
from tests.fakes.kfp.driver import Installation
from tests.fakes.kfp.engine import Attempt, Engine
from tests.fixtures.shop import decision

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/pipeline/golden/batch_scoring.yaml"
SHARDS = 3
GIVEN = {
    "model_uri": "models:/latentr3@champion",
    "users": "gs://b/users.parquet",
    "batch_score_shards": SHARDS,
}
OUTPUTS = {
    "list_shards": lambda _: {
        "Output": [
            {"version": "models:/latentr3/7", "part": f"{number}/{SHARDS}"} for number in range(1, SHARDS + 1)
        ]
    }
}


def engine(**behave) -> Engine:
    settings = {"LATENTREC_MLFLOW_TRACKING_URI": "http://mlflow:5000"}
    return Engine(Installation({"latentrec-settings": settings}), outputs=OUTPUTS, behave=behave)


def test_every_shard_is_a_pod_of_its_own_and_the_merge_gets_them_in_order():
    result = engine().run(Pipeline(GOLDEN), {**GIVEN, "score_memory": "64Gi", "k": 20})
    assert result.state == "SUCCEEDED", result.events
    assert set(result.phases.values()) == {"Succeeded"}
    pods = result.pods["score_shard"]
    given = [pod.executor_input["inputs"]["parameterValues"] for pod in pods]
    assert [one["shard"] for one in given] == ["1/3", "2/3", "3/3"]
    assert {(one["model_uri"], one["users"], one["k"]) for one in given} == {
        ("models:/latentr3/7", "gs://b/users.parquet", 20)
    }
    assert {(pod.limits["cpu"], pod.limits["memory"]) for pod in pods} == {("4", "64Gi")}
    (merge,) = result.pods["merge_shards"]
    parts = merge.executor_input["inputs"]["artifacts"]["shards"]["artifacts"]
    assert len({part["name"] for part in parts}) == SHARDS


def test_a_lost_pod_brings_its_shard_back_and_no_other():
    attempts = (Attempt(), Attempt("lost"), Attempt())
    result = engine(score_shard=attempts).run(Pipeline(GOLDEN), GIVEN)
    assert result.state == "SUCCEEDED", result.events
    shards = [pod.executor_input["inputs"]["parameterValues"]["shard"] for pod in result.pods["score_shard"]]
    assert shards == ["1/3", "2/3", "2/3", "3/3"]


def test_a_shard_that_fails_for_good_fails_the_run_and_nothing_is_merged():
    attempts = (Attempt(), Attempt("failed", message="main: Error (exit code 1)"), Attempt())
    result = engine(score_shard=attempts).run(Pipeline(GOLDEN), GIVEN)
    assert result.state == "FAILED"
    assert (result.phases["score_shard"], result.phases["merge_shards"]) == ("Failed", "Omitted")
    assert len(result.pods["score_shard"]) == SHARDS, "the others are scored to the end"


def test_no_step_is_cached_and_the_shards_are_retried():
    spec, platform = yaml.safe_load_all(GOLDEN.read_text(encoding="utf-8"))
    dags = [spec["root"], *spec["components"].values()]
    tasks = {name: task for dag in dags for name, task in dag.get("dag", {}).get("tasks", {}).items()}
    assert tasks["score-shard"]["retryPolicy"]["maxRetryCount"] == 3
    assert not any(task.get("cachingOptions", {}).get("enableCache") for task in tasks.values())
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert {pod["securityContext"]["runAsUser"] for pod in pods.values()} == {"10001"}
    for executor in spec["deploymentSpec"]["executors"].values():
        assert executor["container"]["image"].split("/")[-1].startswith("register:")


BAD = {
    "model_uri": ("", "champion"),
    "users": ("",),
    "batch_score_shards": (0, 1001),
    "k": (0, 201),
    "batch_size": (0,),
    "score_cpu": ("many",),
    "score_memory": ("16 GB",),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values]
)
def test_a_parameter_that_cannot_be_is_refused_before_a_pod_costs(name, value):
    with refused("config.missing_value" if value == "" else "config.bad_value", name):
        check_scoring(GIVEN | {name: value})


def test_submitting_takes_texts_and_refuses_what_a_cluster_cannot_read(tmp_path):
    text = "model_uri=models:/m@champion users={} batch_score_shards=4 k=20"
    found = checked_parameters("batch_scoring", text.format("gs://b/users.parquet"))
    assert (found["batch_score_shards"], found["k"]) == (4, 20)
    with refused("images.not_pullable", "users", str(tmp_path)):
        checked_parameters("batch_scoring", text.format(tmp_path / "users.parquet"))
    with refused("config.unknown_name", "batch_score_shard", "batch_score_shards"):
        checked_parameters("batch_scoring", "batch_score_shard=4")
    with refused("config.unknown_name", "sft.learning_rate"):
        checked_parameters("batch_scoring", "sft.learning_rate=1")


def test_make_run_names_the_command_instead():
    with refused("config.conflict", "batch_scoring", "latentrec batch-score"):
        make_run(["--system", "batch_scoring"])


@pytest.fixture
def users(register, tmp_path):
    """A file of users, and a registered model."""
    register(decision(), run_id="run-1")
    path = tmp_path / "users.jsonl"
    rows = [{"user_key": f"u{n}", "history": [f"B{n % 30:04d}", f"B{n * 7 % 30:04d}"]} for n in range(25)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def score(users: Path, output: str, shard: Shard | None = None) -> str:
    more = {"shard": shard} if shard else {}
    found = batch_score(
        model="models:/latentr3@champion", users=str(users), output=output, batch_size=4, **more
    )
    return found.uri


@pytest.mark.parametrize(
    ("change", "named"), [({"users": "none.parquet"}, "none.parquet"), ({"shards": 0}, "0")]
)
def test_listing_refuses_what_no_shard_could_score(users, capsys, change, named):
    given = {"users": str(users), "shards": 2, "k": 5, "batch_size": 4, "cpu": "1", "memory": "1Gi", **change}
    with pytest.raises(SystemExit) as left:
        run_list_shards_step("models:/latentr3@champion", **given)
    assert left.value.code == 2
    assert named in capsys.readouterr().err


def test_a_shard_of_another_number_is_named(users, tmp_path):
    parts = [score(users, str(tmp_path / "parts"), Shard(number, 2)) for number in (1, 2)]
    whole = score(users, str(tmp_path / "whole.parquet"))
    with refused("shards.other_users", "is shard 2/2, expected 1/2"):
        merge_files(parts[::-1], str(tmp_path / "merged.parquet"))
    with refused("shards.other_users", "is shard none, expected 1/2"):
        merge_files([whole, parts[1]], str(tmp_path / "merged.parquet"))
    assert in_order(parts[::-1]) == parts
    merged, users_of_it = merge_files(in_order(parts[::-1]), str(tmp_path / "merged.parquet"))
    assert (users_of_it, Path(merged).read_bytes()) == (25, Path(whole).read_bytes())


def test_a_shard_of_one_is_the_whole_file(users, tmp_path):
    whole = score(users, str(tmp_path / "whole.parquet"))
    merged, users_of_it = merge_files([whole], str(tmp_path / "merged.parquet"))
    assert (users_of_it, Path(merged).read_bytes()) == (25, Path(whole).read_bytes())
    part = score(users, str(tmp_path / "parts"), Shard(1, 2))
    with refused("shards.other_users", "is shard 1/2, expected 1/1"):
        merge_files([part], str(tmp_path / "other.parquet"))


def kill_one(marker: str, stop: threading.Event, killed: list[int]) -> None:
    """Kill the first process that scores a shard, once."""
    me = psutil.Process()
    while not stop.is_set() and not killed:
        for child in me.children(recursive=True):
            try:
                words = " ".join(child.cmdline())
                if marker in words and "executor_main" in words:
                    child.kill()
                    killed.append(child.pid)
                    return
            except psutil.Error:
                continue
        time.sleep(0.02)


@pytest.fixture
def quick_retries():
    """The pipeline with a second between attempts instead of a minute."""
    from pipeline.batch_scoring import batch_scoring

    spec = batch_scoring.pipeline_spec
    before = type(spec)()
    before.CopyFrom(spec)
    for component in spec.components.values():
        for task in component.dag.tasks.values() if component.HasField("dag") else ():
            if task.HasField("retry_policy"):
                task.retry_policy.backoff_duration.seconds = 1
    yield batch_scoring
    spec.CopyFrom(before)


@pytest.mark.slow
def test_kfp_scores_in_shards_and_a_killed_one_is_scored_again(users, quick_retries, tmp_path, monkeypatch):
    from kfp import local

    whole = Path(score(users, str(tmp_path / "whole.parquet"))).read_bytes()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    local.init(
        local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"), raise_on_error=True
    )
    stop, killed = threading.Event(), []
    watcher = threading.Thread(target=kill_one, args=(f'"shard": "2/{SHARDS}"', stop, killed), daemon=True)
    watcher.start()
    try:
        quick_retries(
            model_uri="models:/latentr3@champion",
            users=str(users),
            batch_score_shards=SHARDS,
            output_uri=str(tmp_path / "out"),
            batch_size=4,
        )
    finally:
        stop.set()
        watcher.join()
    assert killed, "no shard was killed, so nothing is shown"
    made = tmp_path / "out" / "recommendations.parquet"
    assert made.read_bytes() == whole
    assert pq.read_metadata(made).num_rows == 25
    tree = RunTree(RunContext.from_environment())
    assert tree.client.get_run(tree.parent()).info.status == "FINISHED"
