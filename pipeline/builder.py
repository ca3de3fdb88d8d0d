"""What the DAGs share: the exit handler around a run, and one call a step that places it.

A DAG file reads top to bottom as a sequence of steps; this keeps names, profiles and wiring out of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kfp import dsl

from components.data_prep.component import data_prep
from components.evaluate.component import evaluate
from components.preflight.component import preflight
from components.register.component import register
from components.roll_out.component import roll_out
from components.run_summary.component import run_summary
from latentrec.core import UserError
from pipeline import task_settings as placement
from pipeline.kfp_compat import settings_without_sources
from pipeline.task_settings import Profile, place

ROLL_OUT_STEP = "roll_out"


@dataclass
class Run:
    """One pipeline being built.

    Attributes:
        system: name of the pipeline.
        parameters: the pipeline's parameters by name.
        steps: names of the steps, in order.
        checked: the preflight task; its outputs are the checked configuration of each step.
        prepared: the data preparation task.
    """

    system: str
    parameters: Mapping[str, Any]
    steps: list[str] = field(default_factory=list)
    checked: dsl.PipelineTask | None = None
    prepared: dsl.PipelineTask | None = None

    def step(self, task: dsl.PipelineTask, profile: Profile, *, name: str, title: str) -> dsl.PipelineTask:
        """Place a task as the step ``name``."""
        self.steps.append(name)
        return place(
            task,
            profile,
            system=self.system,
            step=name,
            title=title,
            pool=self.checked.outputs if self.checked else {},
        )

    def config(self, step: str) -> Any:
        """The fields of one step's configuration that the run sets, after preflight has checked them."""
        assert self.checked is not None
        return self.checked.outputs[f"{step}_config"]

    def stage_2(self) -> Any:
        """What LatentR3's stage 2 runs."""
        assert self.checked is not None
        return self.checked.outputs["stage_2"]

    def champion(self) -> Any:
        """The registered version that training begins at; empty for none."""
        assert self.checked is not None
        return self.checked.outputs["start_from"]

    def preflight(self) -> dsl.PipelineTask:
        """Check everything before anything costs."""
        # A constant of the task: KFP does not fill the placeholder in where it comes as a run's parameter.
        time = dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER
        task = preflight(system=self.system, scheduled_time=time, **self.parameters)
        self.checked = self.step(task, placement.PREFLIGHT, name="preflight", title="Preflight")
        return self.checked

    def data_prep(self) -> dsl.PipelineTask:
        """Reviews to a dataset directory."""
        assert self.checked is not None
        prepared = data_prep(
            inputs_fingerprint=self.checked.outputs["inputs_fingerprint"], config=self.config("data_prep")
        )
        self.prepared = self.step(prepared, placement.DATA, name="data_prep", title="Prepare data")
        return self.prepared

    def unless_known(self) -> dsl.If:
        """What a run does with its data; skipped where it is to stop without new data and has found none."""
        assert self.checked is not None
        assert self.prepared is not None
        content, known = self.prepared.outputs["content"], self.checked.outputs["known_content"]
        return dsl.If(content != known, name="Train and compare")

    def evaluate(self, dataset: Any, trained: Mapping[str, dsl.PipelineTask]) -> dsl.PipelineTask:
        """Score the models of trainers, by the names in the tables; the last one is the challenger."""
        inputs = {f"model_{index}": task.outputs["model"] for index, task in enumerate(trained.values(), 1)}
        task = evaluate(
            dataset=dataset,
            names=list(trained),
            champion_of=self.parameters["registry_model_name"],
            config=self.config("evaluate"),
            **inputs,
        )
        return self.step(task, placement.EVALUATE, name="evaluate", title="Evaluate")

    def register(
        self,
        trained: dsl.PipelineTask,
        evaluated: dsl.PipelineTask,
        dataset: Any,
        assistant: dsl.PipelineTask | None = None,
    ) -> dsl.PipelineTask:
        """Register the challenger; champion only through the gate. ``assistant``: mixed in by d3 decoding."""
        helped = {"assistant": assistant.outputs["model"]} if assistant is not None else {}
        task = register(
            model=trained.outputs["model"],
            evaluation=evaluated.outputs["evaluation"],
            dataset=dataset,
            name=self.parameters["registry_model_name"],
            **helped,
        )
        registered = self.step(task, placement.REGISTER, name="register", title="Register")
        if form := roll_out_form():
            served = roll_out(
                uri=task.outputs["uri"],
                promoted=task.outputs["promoted"],
                form=form,
                namespace=os.environ.get("SERVE_NAMESPACE", ""),
                mode=roll_out_mode(),
            )
            self.step(served, placement.ROLL_OUT, name=ROLL_OUT_STEP, title="Roll out")
        return registered


def roll_out_form() -> str:
    """How promoted versions are rolled out by what is compiled now (``SERVE_AFTER_PROMOTION``); empty: not.

    Raises:
        UserError: it is neither form of an ``InferenceService``.
    """
    form = os.environ.get("SERVE_AFTER_PROMOTION", "")
    if form not in ("", "image", "mlflow"):
        raise UserError(
            f"SERVE_AFTER_PROMOTION is {form!r}, expected image or mlflow, or nothing",
            code="config.bad_value",
        )
    return form


def roll_out_mode() -> str:
    """KServe's deployment mode of what is rolled out (``SERVE_MODE``).

    Raises:
        UserError: KServe has no such mode.
    """
    mode = os.environ.get("SERVE_MODE", "") or "knative"
    if mode not in ("knative", "standard"):
        raise UserError(f"SERVE_MODE is {mode!r}, expected knative or standard", code="config.bad_value")
    return mode


@contextmanager
def run_of(system: str, steps: list[str], parameters: Mapping[str, Any]) -> Iterator[Run]:
    """Open the run of a DAG: everything inside is watched by the run summary, which always comes last.

    Args:
        system: name of the pipeline.
        steps: names of the steps in order, for the summary; checked against what is built.
        parameters: the pipeline's parameters by name.
    """
    steps = [*steps, ROLL_OUT_STEP] if roll_out_form() else steps
    with settings_without_sources():
        summary = run_summary(steps=steps)
        run = Run(system, parameters)
        run.step(summary, placement.SUMMARY, name="run_summary", title="Run summary")
        run.steps.clear()
        with dsl.ExitHandler(summary, name="All steps"):
            yield run
    assert run.steps == steps, f"{system}: steps are {run.steps}, announced were {steps}"
