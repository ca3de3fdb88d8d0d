"""Registration: a version with lineage and card, alias ``challenger``, the champion's alias by the gate."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from latentrec.core import UserError
from latentrec.decoding import DecodingOptions
from latentrec.evaluation.gate_decision import GateDecision
from latentrec.models import ModelInfo, read_model
from latentrec.models.sequential.encoders import ENCODERS
from latentrec.registry.model_card import as_description, model_card
from latentrec.registry.model_registry import CHALLENGER, RegisteredVersion, Registry, check_model_name
from latentrec.registry.packaging import Package, catalogue_of, log_served_model
from latentrec.registry.promotion import PromotionEvent, apply_gate, hold_lock
from latentrec.registry.promotion_lock import lock_root
from latentrec.storage import Manifest, read_manifest
from latentrec.tracking.run_context import RunContext


@dataclass(frozen=True)
class Registration:
    """The outcome: the version, and what the gate did about the champion's alias."""

    model: RegisteredVersion
    event: PromotionEvent

    @property
    def promoted(self) -> bool:
        """Whether the version is the champion now."""
        return self.event.action == "promoted"


def register_model(
    *,
    model_dir: str | Path,
    evaluation_dir: str | Path,
    name: str,
    run_id: str | None = None,
    dataset_dir: str | Path | None = None,
    catalogue: str | Path | None = None,
    assistant_dir: str | Path | None = None,
) -> Registration:
    """Register an evaluated model and let the gate decide on the champion's alias.

    A retry of the same pipeline run finds the version that the first attempt registered.

    Args:
        model_dir: the model.
        evaluation_dir: the evaluation in which it was the challenger.
        name: registered name (``latentr3``…).
        run_id: MLflow run that the model is logged under; ``None`` opens one.
        dataset_dir: dataset that it was trained on; its manifest is kept for the next run to compare.
        catalogue: ``items.parquet`` to serve instead of the model's own.
        assistant_dir: the run's SASRec: mixed into the answers of a model that was evaluated with d3
            decoding, kept beside any other as the baseline that `make demo` compares it with.

    Raises:
        UserError: a name that MLflow refuses, no registry, the evaluation did not evaluate this model, or a
            directory is not finished.
    """
    check_model_name(name)
    model_dir, evaluation_dir = Path(model_dir), Path(evaluation_dir)
    info, manifest = read_model(model_dir)
    if info.system in ENCODERS:
        from latentrec.models.sequential import encoder_of  # torch

        encoder_of(info, model_dir)  # MLflow would register a model that cannot be loaded
    evaluated = read_manifest(evaluation_dir, "evaluation")
    gate, options = _evaluated(evaluation_dir, evaluated, info, model_dir, manifest, assistant_dir)
    dataset = _dataset(dataset_dir, info)
    registry = Registry()
    lock_root(registry.tracking_uri)
    context = RunContext.from_environment()
    lineage = _lineage(registry, name, info, manifest, context)
    lineage["evaluation.fingerprint"] = evaluated.fingerprint
    card = model_card(
        name=name,
        info=info,
        gate=gate,
        evaluation=evaluation_dir,
        lineage=lineage,
        dataset=dataset,
        options=options,
    )
    logged = None
    if _registered_before(registry, name, lineage) is None:
        package = Package(
            info=info,
            model_dir=model_dir,
            catalogue=catalogue_of(model_dir, catalogue),
            card=card,
            dataset_manifest=Path(dataset_dir) / "manifest.json" if dataset_dir else None,
            assistant_dir=Path(assistant_dir) if assistant_dir and _is_mixed(info, options) else None,
            baseline_dir=Path(assistant_dir) if assistant_dir and not _is_mixed(info, options) else None,
            options=options,
            name=name,
            metadata=lineage,
        )
        logged = _log(registry, package, run_id)
    # The slow upload is done; what follows is short, and a process that is killed in it leaves a state that
    # a retry completes: version, alias and verdict are each looked up before they are made.
    with hold_lock(registry, name) as lock:
        found = _registered_before(registry, name, lineage)
        if found is None:
            if logged is None:
                raise UserError(
                    f"{name}: the version of this run was deleted meanwhile; register again",
                    code="registry.version_deleted",
                )
            found = _create_version(registry, name, logged, lineage, card)
        lock.check()
        registry.client.set_registered_model_alias(name, CHALLENGER, found.version)
        event = apply_gate(registry, name, found.version, gate, lock)
    return Registration(registry.by_version(name, found.version), event)


def _log(registry: Registry, package: Package, run_id: str | None) -> str:
    with tempfile.TemporaryDirectory(prefix="latentrec-register-") as folder:
        return log_served_model(package, run_id or _own_run(registry), Path(folder))


def _create_version(
    registry: Registry, name: str, uri: str, lineage: dict[str, str], card: str
) -> RegisteredVersion:
    import mlflow

    version = mlflow.register_model(uri, name, tags={key: value[:4900] for key, value in lineage.items()})
    registry.client.update_model_version(name, version.version, description=as_description(card))
    return registry.by_version(name, version.version)


def _own_run(registry: Registry) -> str:
    from latentrec.tracking.runs import RunTree

    return RunTree(RunContext.from_environment()).step("register")


def _evaluated(
    evaluation: Path,
    manifest: Manifest,
    info: ModelInfo,
    model_dir: Path,
    model: Manifest,
    assistant_dir: str | Path | None,
) -> tuple[GateDecision, DecodingOptions]:
    gate = GateDecision.read(evaluation / "gate.json")
    evaluated = manifest.inputs.get(f"model:{gate.challenger_name}")
    if evaluated != model.fingerprint:
        raise UserError(
            f"{evaluation} evaluated '{gate.challenger_name}' ({(evaluated or 'no fingerprint')[:12]}), and "
            f"{model_dir} is {model.fingerprint[:12]}; evaluate this model as the challenger first",
            code="registry.other_evaluation",
        )
    served_as = manifest.extra.get("served_as", {})
    options = DecodingOptions.from_config(served_as.get(gate.challenger_name, {}))
    if _is_mixed(info, options) and assistant_dir is None:
        raise UserError(
            f"{evaluation} scored the model as a mixture ({options}), which needs its assistant: give "
            "--assistant DIR",
            code="decoding.needs_assistant",
        )
    return gate, options


def _is_mixed(info: ModelInfo, options: DecodingOptions) -> bool:
    return info.system == "latentr3" and options.is_mixture


def _dataset(directory: str | Path | None, info: ModelInfo) -> Manifest | None:
    if directory is None:
        return None
    manifest = read_manifest(directory, "dataset", verify=False)
    if manifest.fingerprint != info.dataset_fingerprint:
        raise UserError(
            f"{directory} is dataset {manifest.fingerprint[:12]}, the model was trained on "
            f"{info.dataset_fingerprint[:12]}; give the dataset that made the model",
            code="registry.other_dataset",
        )
    return manifest


def _lineage(
    registry: Registry, name: str, info: ModelInfo, model: Manifest, context: RunContext
) -> dict[str, str]:
    tags = {
        **context.tags(),
        "model.system": info.system,
        "model.stage": info.stage,
        "model.fingerprint": model.fingerprint,
        "model.train_end": str(info.train_end),
        "dataset.fingerprint": info.dataset_fingerprint,
    }
    trained_by = model.extra.get("mlflow_run_id")
    if trained_by:
        tags["model.mlflow_run_id"] = str(trained_by)
    if info.parent:
        tags["model.parent"] = info.parent
        known = registry.versions(name)
        parents = [entry.version for entry in known if entry.tags.get("model.fingerprint") == info.parent]
        if parents:
            tags["model.parent_version"] = parents[-1]
    return tags


def _registered_before(registry: Registry, name: str, lineage: dict[str, str]) -> RegisteredVersion | None:
    """The version that an earlier attempt of this registration has made, if any.

    Within a pipeline run a model is registered once; by hand, a model is registered once an evaluation.
    """
    once = "pipeline.run_id" if lineage.get("pipeline.run_id") else "evaluation.fingerprint"
    same = {key: lineage[key] for key in ("model.fingerprint", once)}
    for version in reversed(registry.versions(name)):
        if same.items() <= version.tags.items():
            return version
    return None
