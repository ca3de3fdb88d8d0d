"""What every component does around its one library call: configuration, status, MLflow run, exit code.

The runtime of a component. ``open_step`` turns the component's typed inputs into
the step's configuration, records its status (also when the configuration is wrong), opens its MLflow run,
and turns errors into exit codes.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentrec.core import UserError
from latentrec.core.settings import CHECKPOINT_ROOT_VARIABLE, STEP_VARIABLE
from latentrec.evaluation.gate_decision import GateDecision
from latentrec.registry.registration import Registration, register_model
from latentrec.steps.launch import check_accelerators, launch_worker
from latentrec.steps.model_name import model_name_for
from latentrec.steps.operational import read_operational
from latentrec.steps.parameters import CONFIG_OUTPUTS, STEPS, make_config
from latentrec.steps.run_overview import show_evaluation
from latentrec.steps.status import StepStatus, exit_code_on_error, step_status
from latentrec.steps.step_run import StepRun, step_run
from latentrec.storage import Manifest
from latentrec.tracking.run_context import is_main_process
from latentrec.training.common.metric_logger import MetricLogger
from latentrec.training.common.world import leave_process_group
from latentrec.training.training_report import training_report


@dataclass
class Step:
    """A running step: its configuration and where its metrics and outputs go."""

    config: Any
    run: StepRun

    @property
    def metric_logger(self) -> MetricLogger:
        """Where the library reports figures."""
        return self.run.metric_logger

    @property
    def status(self) -> StepStatus:
        """What the run summary will read."""
        return self.run.status

    def finish(self, artifact: Any, manifest: Manifest | None) -> None:
        """Describe a finished directory in the KFP artifact's metadata and in the step's status.

        ``None`` is what a trainer returns in the ranks above 0 of a distributed launch, which report nothing.
        """
        if manifest is None:
            return
        described = {"fingerprint": manifest.fingerprint, "counts": json.dumps(manifest.counts)}
        if self.run.mlflow_run_id:
            described["mlflow_run_id"] = self.run.mlflow_run_id
        artifact.metadata.update(described)
        self.status.details.update(output=artifact.path, fingerprint=manifest.fingerprint)
        report = Path(artifact.path) / "report.html"
        if report.is_file():
            self.run.log_report(report, f"{self.status.step}.html")
        self.status.details["counts"] = manifest.counts

    def finish_training(self, artifact: Any, manifest: Manifest | None, report: Any) -> None:
        """The same for a model directory, with the report of its training.

        Args:
            artifact: KFP's output that is the directory.
            manifest: of the directory; ``None`` in the ranks above 0.
            report: KFP's output for the report.
        """
        self.finish(artifact, manifest)
        if manifest is not None:
            Path(report.path).write_text(training_report(artifact.path), encoding="utf-8")
            self.run.log_report(report.path, f"{self.status.step}.html")

    def finish_evaluation(
        self, artifact: Any, manifest: Manifest, *, reports: Mapping[str, Any], metrics: Any
    ) -> GateDecision:
        """The same for an evaluation directory, with its reports and the challenger's metrics; the verdict.

        Args:
            artifact: KFP's output that is the directory.
            manifest: of the directory.
            reports: KFP's output for each file of the directory that the run's page shows.
            metrics: KFP's output for the figures.
        """
        self.finish(artifact, manifest)
        directory = Path(artifact.path)
        for name, shown in reports.items():
            shutil.copyfile(directory / name, shown.path)
        gate = GateDecision.read(directory / "gate.json")
        table = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))
        for name, entry in table[gate.challenger_name].items():
            metrics.log_metric(name, entry["value"])
        self.status.details |= {"verdict": gate.reason, "promote": gate.promote}
        show_evaluation(self.run, directory)
        return gate


@contextmanager
def open_step(
    step: str,
    settings: Mapping[str, Any],
    *,
    dataset: str | None = None,
    distributed: bool = False,
) -> Iterator[Step]:
    """Run a component's body as a step; ``LATENTREC_STEP`` replaces ``step`` where a DAG calls it otherwise.

    Args:
        step: of :data:`latentrec.steps.parameters.STEPS`, for a component that is run by itself.
        settings: fields of the step's configuration; those that are absent have their default.
        dataset: dataset directory that the step reads.
        distributed: the trainer may have one process for each accelerator of the pod.
    """
    name = os.environ.get(STEP_VARIABLE) or step
    group = name if name in STEPS else step
    with exit_code_on_error():
        try:
            check_accelerators()
            config = make_config(group, {**settings, **read_operational(group)})
        except UserError:
            with step_status(name):
                raise
        launch_worker(distributed=distributed)
        with step_run(name, config=config, dataset=dataset) as run:
            yield Step(config, run)
    leave_process_group()
    if not is_main_process():
        raise SystemExit(0)  # rank 0 alone writes the step's outputs


def stage_2_trainer(objective: str) -> Callable[..., Manifest | None]:
    """The trainer of LatentR3's stage 2.

    Args:
        objective: ``title_objective`` or ``grpo``.

    Raises:
        UserError: it is neither.
    """
    if objective == "title_objective":
        from latentrec.training.latentr3.title_objective import train_title_objective

        return train_title_objective
    if objective == "grpo":
        from latentrec.training.latentr3.grpo import train_grpo

        return train_grpo
    raise UserError(f"objective is {objective!r}, expected title_objective or grpo", code="config.bad_value")


def checkpoint_root() -> str | None:
    """Where trainers keep checkpoints: ``LATENTREC_CHECKPOINT_ROOT``; never a parameter (it is no result)."""
    return os.environ.get(CHECKPOINT_ROOT_VARIABLE) or None


@contextmanager
def registered_model(uri: str) -> Iterator[Path | None]:
    """A registered version's model directory, for as long as this lasts; ``None`` for an empty ``uri``."""
    if not uri:
        yield None
        return
    from latentrec.registry.download import pull_model

    with tempfile.TemporaryDirectory(prefix="latentrec-registered-") as folder:
        directory = Path(folder) / uri.removeprefix("models:/").replace("/", "-v")
        pull_model(uri, directory)
        yield directory


def run_preflight_step(parameters: dict[str, Any], page: Any) -> tuple[Any, ...]:
    """The body of the preflight component: checks everything, opens the pipeline's MLflow run.

    Args:
        parameters: the component's inputs by name.
        page: KFP's output for what was decided.

    Returns:
        The component's outputs, in order.
    """
    from latentrec.steps.preflight import run_preflight
    from latentrec.steps.preflight_report import describe

    with exit_code_on_error(), step_run("preflight") as run:
        checked = run_preflight(parameters)
        describe(parameters, checked, page)
        run.status.details.update(checked.details)
    pool = checked.pool
    trainer = checked.trainer
    placed = (
        *(pool.node_selector, pool.tolerations, pool.one_gpu),
        *(trainer.size.cpu, trainer.size.memory, trainer.gpus, trainer.node_selector, trainer.tolerations),
    )
    kinds = (checked.sizes[kind] for kind in ("data", "train", "traces", "register"))
    sizes = (text for size in kinds for text in (size.cpu, size.memory))
    data = (checked.inputs_fingerprint, checked.known_content, checked.start_from, checked.stage_2)
    configs = checked.configs | {"stage_2": checked.configs.get(checked.stage_2, {})}
    return (*data, *placed, *sizes, *(configs.get(step, {}) for step in CONFIG_OUTPUTS))


def run_register_step(name: str, **directories: Any) -> Registration:
    """The body of the register component: a new version, aliases through the gate.

    Args:
        name: registered model; empty: by system and dataset.
        directories: as of :func:`latentrec.registry.registration.register_model`.
    """
    with exit_code_on_error(), step_run("register") as run:
        name = model_name_for(directories["dataset_dir"], directories["model_dir"], name)
        found = register_model(name=name, run_id=run.mlflow_run_id, **directories)
        run.link_model(found.model.model_id)
        show_evaluation(run, Path(directories["evaluation_dir"]), found.model)
        run.set_tags({"registered": found.model.uri, "gate.verdict": found.event.action})
        alias = "champion" if "champion" in found.model.aliases else "challenger"
        run.status.details |= {
            "registered": found.model.uri,
            "served_as": f"models:/{name}@{alias}",
            "promoted": found.promoted,
            "verdict": found.event.reason,
        }
    return found
