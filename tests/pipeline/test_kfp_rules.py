"""Every compiled pipeline against what a real KFP does with it; and the rules against what breaks them."""

from pathlib import Path
from typing import Optional

import pytest
import yaml
from kfp import compiler, dsl, kubernetes

from pipeline.dags import PIPELINES, SYSTEMS
from tests.pipeline.kfp_rules import (
    RULES,
    CompiledPipeline,
    executors_that_cannot_start,
    limits_that_are_left_out,
    retries_that_end_too_early,
    variables_that_clash,
)

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("system", PIPELINES)
def test_a_real_kfp_runs_it(system, rule):
    assert list(rule(CompiledPipeline(GOLDEN / f"{system}.yaml"))) == []


def broken(tmp_path: Path) -> CompiledPipeline:
    """A pipeline that makes every mistake once."""

    @dsl.component
    def produce(model: dsl.Output[dsl.Model]) -> None:
        pass

    @dsl.component
    def consume(
        dataset: dsl.Input[dsl.Model],
        model: Optional[dsl.Input[dsl.Model]] = None,  # noqa: UP045
    ) -> None:
        pass

    @dsl.pipeline(name="broken")
    def pipeline(gpus: int = 1) -> None:
        first = produce()
        task = consume(dataset=first.outputs["model"], model=first.outputs["model"])
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(gpus)
        task.set_retry(3, backoff_duration="60s", backoff_factor=2, backoff_max_duration="900s")
        kubernetes.set_timeout(task, 3600)
        kubernetes.use_config_map_as_env(task, "settings", {"URI": "MLFLOW_TRACKING_URI"})

    path = tmp_path / "broken.yaml"
    compiler.Compiler().compile(pipeline, str(path))
    return CompiledPipeline(path)


def test_each_rule_finds_its_fault(tmp_path):
    pipeline = broken(tmp_path)
    (fault,) = executors_that_cannot_start(pipeline)
    assert fault.startswith("consume: TypeError: Cannot instantiate typing.")
    assert list(limits_that_are_left_out(pipeline)) == [
        "consume: accelerator.resourceCount reads pipelinechannel--gpus, which is NUMBER_INTEGER"
    ]
    assert list(retries_that_end_too_early(pipeline)) == [
        "consume: backoffMaxDuration is 900 s, the attempts may take 14400 s"
    ]
    (fault,) = variables_that_clash(pipeline)
    assert "MLFLOW_TRACKING_URI" in fault


def test_parameters_under_resources_are_texts():
    """Whichever resource a run may choose: a number would be left out without a word."""
    for system in SYSTEMS:
        spec = next(yaml.safe_load_all((GOLDEN / f"{system}.yaml").read_text(encoding="utf-8")))
        parameters = spec["root"]["inputDefinitions"]["parameters"]
        assert parameters["gpu_count"]["parameterType"] == "STRING"
