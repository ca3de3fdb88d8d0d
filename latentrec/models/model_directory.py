"""``model.json``: what a model directory says of itself. Weights stand beside it as safetensors only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from latentrec.core import UserError
from latentrec.core.documents import parse_document
from latentrec.core.text import one_line
from latentrec.storage import Manifest, read_manifest

MODEL_JSON = "model.json"
TRAINING_CURVE = "training_curve.json"
"""Figures over training, beside the weights; a log, which enters no fingerprint."""


@dataclass(frozen=True)
class ModelInfo:
    """Provenance and shape of a trained model.

    Attributes:
        system: ``latentr3``, ``lares``, ``reczero``, ``recone``, or a baseline (``sasrec``, ``popularity``…).
        stage: the step that made it: ``sft``, ``grpo``, ``sequential``, ``rpt``, ``cold_start_sft``…
        config: the step's configuration.
        architecture: what is needed to rebuild the module before its weights are loaded.
        metrics: on validation, at the checkpoint kept.
        dataset_fingerprint: of the dataset it was trained on.
        parent: fingerprint of the model it started from, or ``None``.
        train_end: UTC seconds of the latest event that training has seen (targets and histories).
        notes: provenance that users must know (a placeholder backbone, a collapse guard that fired).
    """

    system: str
    stage: str
    config: dict[str, Any]
    architecture: dict[str, Any]
    metrics: dict[str, float]
    dataset_fingerprint: str
    parent: str | None
    train_end: int
    notes: list[str] = field(default_factory=list)

    def write(self, directory: Path) -> None:
        """Write ``model.json`` into a directory that is being made."""
        text = json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"
        (directory / MODEL_JSON).write_text(text, encoding="utf-8")


def read_model(directory: str | Path, *, verify: bool = True) -> tuple[ModelInfo, Manifest]:
    """Read ``model.json`` and the manifest of a model directory.

    Raises:
        UserError: not a finished model directory, or changed since it was written.
    """
    directory = Path(directory)
    manifest = read_manifest(directory, "model", verify=verify)
    path = directory / MODEL_JSON
    try:
        return ModelInfo(**parse_document(path.read_bytes())), manifest
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{path}: not a model description ({one_line(error)}); run the step that makes it again",
            code="model.unreadable",
        ) from None


def write_curve(
    directory: Path, logged: Sequence[Mapping[str, float]], evaluations: Sequence[Mapping[str, float]] = ()
) -> None:
    """Write how training went into a model directory that is being made.

    Args:
        directory: of the model.
        logged: figures at each logged step, with that ``step``.
        evaluations: figures on validation, with their ``step``; written as ``valid/…``.
    """
    measured = [
        {name if name == "step" else f"valid/{name}": value for name, value in entry.items()}
        for entry in evaluations
    ]
    curve = sorted([*logged, *measured], key=lambda entry: entry["step"])
    (directory / TRAINING_CURVE).write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")


def read_curve(directory: str | Path) -> list[dict[str, float]]:
    """What :func:`write_curve` wrote; empty for a model that no training made (popularity)."""
    path = Path(directory) / TRAINING_CURVE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
