"""The four pipelines on KFP as it was seen to work: pods, retries, cache, exit handler, and our verdict."""

from pathlib import Path

import pytest

from latentrec.steps.node_pools import choose_pool
from latentrec.steps.parameters import CONFIG_OUTPUTS, check_parameters
from latentrec.steps.status import StepStatus
from latentrec.steps.step_sizes import choose_sizes
from latentrec.steps.training_nodes import choose_nodes, trainer_pod
from latentrec.steps.verdict import Outcome, decide
from pipeline.dags import SYSTEMS
from tests.fakes.kfp.compiled import Pipeline
from tests.fakes.kfp.driver import PLUGIN_VARIABLES, Installation
from tests.fakes.kfp.engine import Attempt, Engine, Result
from tests.fakes.kfp.nodes import GPU, GPU_TAINT, Node

GOLDEN = Path(__file__).parent / "golden"
HOUR = 3600.0
TRAINER = {"latentr3": "sft", "lares": "spt", "reczero": "rating_grpo", "recone": "cold_start_sft"}
INPUTS = {"customer_reviews": "gs://b/reviews.json.gz"}
SETTINGS = {
    "LATENTREC_MLFLOW_TRACKING_URI": "http://mlflow:5000",
    "LATENTREC_STATUS_ROOT": "gs://b/status",
}
INSTALLATION = Installation(config_maps={"latentrec-settings": SETTINGS})
L4 = Node(7.4, 27.3, 1, {"cloud.google.com/gke-accelerator": "nvidia-l4"}, (GPU_TAINT,))
CPUS = Node(15.0, 56.0)


def preflight(given):
    """What our preflight decides of the pods, from the input that KFP hands it."""
    found = dict(given["inputs"]["parameterValues"])
    pool, sizes = choose_pool(found), choose_sizes(found)
    texts = {
        f"{kind}_{what}": getattr(size, what) for kind, size in sizes.items() for what in ("cpu", "memory")
    }
    known = "abc" if str(found.get("data_only_new")).lower() == "true" else ""
    placed = {"node_selector": pool.node_selector, "tolerations": pool.tolerations, "one_gpu": pool.one_gpu}
    trainer = trainer_pod(choose_nodes(found, pool, sizes["train"]))
    placed |= {"trainer_cpu": trainer.size.cpu, "trainer_memory": trainer.size.memory}
    placed |= {"trainer_node_selector": trainer.node_selector, "trainer_tolerations": trainer.tolerations}
    placed |= {"trainer_gpus": trainer.gpus}
    system, settings = found.pop("system"), found.pop("settings", {})
    configs = check_parameters(system, found, settings)
    configs["stage_2"] = configs.get("title_objective", {})
    given_to = {f"{step}_config": configs.get(step, {}) for step in CONFIG_OUTPUTS}
    return {**texts, **placed, **given_to, "known_content": known, "inputs_fingerprint": "f"}


OUTPUTS = {"preflight": preflight, "data_prep": lambda _: {"content": "abc"}}


def engine(**changed) -> Engine:
    return Engine(**{"installation": INSTALLATION, "outputs": OUTPUTS, **changed})


@pytest.fixture(params=SYSTEMS)
def pipeline(request) -> Pipeline:
    return Pipeline(GOLDEN / f"{request.param}.yaml")


def steps_of(pipeline: Pipeline) -> list[str]:
    return [step for step in pipeline.steps() if step != "run_summary"]


def verdict(result: Result, pipeline: Pipeline) -> Outcome:
    """What our run summary makes of a run: from the statuses that its steps have left, and KFP's word."""
    words = {"Succeeded": "succeeded", "Failed": "failed", "Error": "running"}
    found = [
        StepStatus(step, words[phase], float(number), None, details={"known_content": "abc"})
        for number, (step, phase) in enumerate(result.phases.items())
        if phase in words and step != "run_summary"
    ]
    order = [step for step in (*steps_of(pipeline), "evaluate", "register") if step != "register"]
    return decide(result.handler_state, found, [*order, "register"]).outcome


def test_a_run_goes_through_and_every_pod_is_as_kubernetes_takes_it(pipeline):
    result = engine(nodes=[CPUS]).run(pipeline, INPUTS | {"gpu_count": "0"})
    assert (result.state, result.handler_state) == ("SUCCEEDED", "COMPLETE")
    assert set(result.phases.values()) == {"Succeeded"}
    assert set(result.phases) == {*steps_of(pipeline), "run_summary"}
    for step, (pod,) in result.pods.items():
        assert set(pod.limits) >= {"cpu", "memory"}, step
        assert pod.variables["LATENTREC_RUN_ID"] == pod.labels["pipeline/runid"] == "run-1"
        assert pod.variables["LATENTREC_MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert verdict(result, pipeline) is Outcome.SUCCEEDED


def test_small_sizes_fit_a_node_of_two_cores_and_eight_gib(pipeline):
    laptop = Node(2.0, 8.0)
    result = engine(nodes=[laptop]).run(pipeline, INPUTS | {"gpu_count": "0", "resources": "small"})
    assert result.state == "SUCCEEDED"
    result = engine(nodes=[laptop]).run(pipeline, INPUTS | {"gpu_count": "0"})
    assert result.state == "RUNNING", "data preparation's 4 CPUs wait for ever"
    assert result.phases["data_prep"] == "Pending"


def test_a_gpu_reaches_the_pods_that_train_and_the_machine_holds_them(pipeline):
    given = INPUTS | {"gpu_count": "1", "gpu_type": "nvidia-l4"}
    result = engine(nodes=[CPUS, L4]).run(pipeline, given)
    assert result.state == "SUCCEEDED", result.events
    (pod,) = result.pods[TRAINER[pipeline.name]]
    assert pod.limits[GPU] == "1"
    assert pod.executor_input["inputs"]["parameterValues"]["accelerator_count"]
    assert result.pods["evaluate"][0].limits[GPU] == "1"
    assert GPU not in result.pods["register"][0].limits


def test_two_gpus_are_asked_for_by_the_trainers_and_one_by_the_evaluation():
    given = INPUTS | {"gpu_count": "2", "gpu_type": "nvidia-l4"}
    result = engine().run(Pipeline(GOLDEN / "latentr3.yaml"), given)
    assert [result.pods[step][0].limits[GPU] for step in ("sft", "stage_2", "evaluate")] == ["2", "2", "1"]


def test_a_pod_lost_after_two_hours_comes_back(pipeline):
    step = TRAINER[pipeline.name]
    behave = {step: (Attempt("lost", 2 * HOUR), Attempt("ok", HOUR))}
    result = engine(behave=behave).run(pipeline, INPUTS | {"gpu_count": "0"})
    assert (result.state, len(result.pods[step])) == ("SUCCEEDED", 2)
    assert "Max duration limit exceeded" not in result.messages(step)
    assert verdict(result, pipeline) is Outcome.SUCCEEDED


def test_a_container_out_of_memory_is_not_tried_again_and_its_siblings_train_on(pipeline):
    step = TRAINER[pipeline.name]
    behave = {step: (Attempt("failed", HOUR, "OOMKilled (exit code 137)"),)}
    result = engine(behave=behave).run(pipeline, INPUTS | {"gpu_count": "0"})
    assert (result.state, result.handler_state) == ("FAILED", "FAILED")
    assert len(result.pods[step]) == 1, "that is why a step starts its own worker again"
    assert int(result.pods[step][0].variables["LATENTREC_MAX_RESTARTS"]) >= 1
    assert result.phases["evaluate"] == result.phases["register"] == "Omitted"
    assert result.phases["run_summary"] == "Succeeded"
    assert verdict(result, pipeline) is Outcome.FAILED


def test_a_user_s_error_in_preflight_costs_one_pod(pipeline):
    result = engine(behave={"preflight": (Attempt("failed", 20.0, "Error (exit code 1)"),)}).run(
        pipeline, INPUTS
    )
    assert {step: len(pods) for step, pods in result.pods.items()} == {"preflight": 1, "run_summary": 1}
    assert verdict(result, pipeline) is Outcome.FAILED


def test_a_pod_that_no_node_takes_waits_for_ever_and_can_be_terminated(pipeline):
    given = INPUTS | {"gpu_count": "1", "gpu_type": "nvidia-l4"}
    assert engine(nodes=[CPUS]).run(pipeline, given).state == "RUNNING"
    result = engine(nodes=[CPUS], terminate_at=HOUR).run(pipeline, given)
    assert (result.state, result.handler_state) == ("FAILED", "FAILED")
    assert result.phases["run_summary"] == "Succeeded"


def test_nothing_new_stops_after_data_preparation_and_is_a_success(pipeline):
    result = engine().run(pipeline, INPUTS | {"gpu_count": "0", "data_only_new": True})
    assert (result.state, result.handler_state) == ("SUCCEEDED", "RUNNING")
    ran = {step for step, phase in result.phases.items() if phase == "Succeeded"}
    assert ran == {"preflight", "data_prep", "run_summary"}
    assert verdict(result, pipeline) is Outcome.NOTHING_NEW


def test_the_second_run_is_served_from_the_cache(pipeline):
    cluster = engine()
    cluster.run(pipeline, INPUTS | {"gpu_count": "0"})
    result = cluster.run(pipeline, INPUTS | {"gpu_count": "0"})
    ran = {step for step, phase in result.phases.items() if phase == "Succeeded"}
    assert ran == {"preflight", "evaluate", "register", "run_summary"}
    assert result.state == "SUCCEEDED"
    other = cluster.run(pipeline, INPUTS | {"gpu_count": "0", "seed": 7})
    assert other.phases["data_prep"] == "Succeeded", "another seed is other work"


def test_a_terminated_run_says_so(pipeline):
    step = TRAINER[pipeline.name]
    result = engine(behave={step: (Attempt("ok", 10 * HOUR),)}, terminate_at=HOUR).run(
        pipeline, INPUTS | {"gpu_count": "0"}
    )
    assert (result.state, result.handler_state) == ("FAILED", "FAILED")
    assert result.messages(step) == ["main: Error (exit code 143)"]
    assert result.phases["evaluate"] == "Omitted"
    statuses = [StepStatus("preflight", "succeeded", 0.0, 1.0), StepStatus(step, "running", 2.0)]
    found = decide(result.handler_state, statuses, steps_of(pipeline), terminated=True)
    assert (found.outcome, [problem.step for problem in found.problems]) == (Outcome.TERMINATED, [step])


def test_the_mlflow_plugin_s_variables_win_and_no_pod_is_refused(pipeline):
    plugged = Installation(config_maps={"latentrec-settings": SETTINGS}, mlflow_plugin=True)
    result = engine(installation=plugged).run(pipeline, INPUTS | {"gpu_count": "0"})
    assert result.state == "SUCCEEDED"
    for (pod,) in result.pods.values():
        assert {name: pod.variables[name] for name in PLUGIN_VARIABLES} == PLUGIN_VARIABLES


def test_a_variable_with_value_and_source_would_be_tried_27_times(tmp_path):
    """The rule itself: the driver's retries stand one within the other."""
    text = (GOLDEN / "lares.yaml").read_text(encoding="utf-8")
    broken = tmp_path / "lares.yaml"
    broken.write_text(text.replace("envVar: LATENTREC_MLFLOW_TRACKING_URI", "envVar: MLFLOW_TRACKING_URI"))
    result = engine(installation=Installation(mlflow_plugin=True)).run(Pipeline(broken), INPUTS)
    assert len(result.pods["preflight"]) == 27
    assert "may not be specified when value is not empty" in result.messages("preflight")[0]
    assert result.state == "FAILED"
