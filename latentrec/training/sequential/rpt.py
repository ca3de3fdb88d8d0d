"""``rpt``: LARES after pre-training, pushed towards the ranking metric itself."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from latentrec.core import UserError, config_from_dict
from latentrec.models import ModelInfo, read_model
from latentrec.models.sequential import LARES, SequentialRecommender, encoder_of
from latentrec.storage import ArtifactWriter, Manifest, check_output
from latentrec.storage.manifest import SCHEMA_VERSION
from latentrec.training.common.metric_logger import NO_METRICS, MetricLogger
from latentrec.training.common.world import world_size
from latentrec.training.sequential.processes import ALONE, Processes, default_device
from latentrec.training.sequential.rows import Rows, epoch_batches, one_row_per_sample, pack_by_user
from latentrec.training.sequential.rpt_config import RPTConfig
from latentrec.training.sequential.rpt_objective import RPTLoss, within_reach
from latentrec.training.sequential.sequential_config import SequentialConfig
from latentrec.training.sequential.state import cpu_threads, reseed
from latentrec.training.sequential.train import (
    SequentialData,
    item_softmax,
    make_loss,
    open_checkpoints,
    write_encoder,
)
from latentrec.training.sequential.training_loop import fit, validation_figures

STEP = "rpt"
WEIGHTS = "model.safetensors"


def train_rpt(
    config: RPTConfig,
    *,
    dataset: str | Path,
    model: str | Path,
    output: str | Path,
    metric_logger: MetricLogger = NO_METRICS,
    checkpoint_root: str | None = None,
) -> Manifest | None:
    """Post-train a LARES model; the weights kept are the best on validation, the given ones included.

    Args:
        config: see :class:`RPTConfig`.
        dataset: the dataset directory that the model was pre-trained on.
        model: LARES model directory.
        output: model directory to make.
        metric_logger: receives curves while training runs.
        checkpoint_root: directory or gs:// location; the same work resumes from there.

    Returns:
        The manifest of the model directory; ``None`` on every process of ``torchrun`` but the first.

    Raises:
        UserError: not a LARES model, or not of this dataset, or no sample passes the filter.
    """
    check_output(output, kind="model", inputs=[dataset, model])
    config.check_world(world_size())
    data = SequentialData.read(dataset)
    parent, manifest = read_model(model)
    if parent.system != "lares":
        raise UserError(
            f"{model} holds a {parent.system} model, rpt post-trains lares", code="model.other_kind"
        )
    if parent.dataset_fingerprint != data.dataset.fingerprint:
        raise UserError(
            f"{model} was trained on dataset {parent.dataset_fingerprint[:12]}…, {dataset} is "
            f"{data.dataset.fingerprint[:12]}…; pre-train on this dataset first",
            code="model.other_dataset",
        )
    processes = Processes.join()
    with cpu_threads(1), ExitStack() as stack:
        checkpoints = open_checkpoints(
            stack, checkpoint_root, STEP, config, data.dataset.fingerprint, manifest.fingerprint
        )
        policy = load_policy(model, parent, config).to(processes.device)
        rows, kept_share = training_rows(policy, parent, data, config, processes)
        recommender = SequentialRecommender(policy, data.catalogue)
        result = fit(
            policy,
            objective(policy, parent, rows, config, processes),
            lambda epoch: epoch_batches(rows, config.batch_size, config.seed, epoch),
            lambda: validation_figures(recommender, data.valid, processes),
            config,
            metric_logger,
            checkpoints,
            validate_first=True,
            label=config.objective,
            processes=processes,
        )
        if not processes.is_first:
            return None
        inputs = {"dataset": data.dataset.fingerprint, "model": manifest.fingerprint}
        with ArtifactWriter(output, "model", config, inputs) as artifact:
            info = ModelInfo(
                system="lares",
                stage=STEP if config.objective == "rpt" else "spt",
                config=config.to_dict(),
                architecture=policy.architecture(),
                metrics={**result.metrics, "samples_within_reach": kept_share},
                dataset_fingerprint=data.dataset.fingerprint,
                parent=manifest.fingerprint,
                train_end=data.dataset.train_end,
            )
            write_encoder(artifact, policy, data, info, result)
    return artifact.manifest


def load_policy(model: str | Path, parent: ModelInfo, config: RPTConfig) -> LARES:
    """The pre-trained weights; under RPT with RPT's own dropout."""
    architecture = dict(parent.architecture)
    if config.objective == "rpt":
        architecture |= {
            "hidden_dropout": config.hidden_dropout,
            "attention_dropout": config.attention_dropout,
        }
    policy = cast(LARES, encoder_of(replace(parent, architecture=architecture), model))
    policy.load_state_dict(load_file(Path(model) / WEIGHTS))
    return policy.to(default_device())


def training_rows(
    policy: LARES,
    parent: ModelInfo,
    data: SequentialData,
    config: RPTConfig,
    processes: Processes = ALONE,
) -> tuple[Rows, float]:
    """The rows to train on and the share of the targets that the hard-sample filter left."""
    spt = _spt_config(parent)
    pack = pack_by_user if spt.packing == "rows" else one_row_per_sample
    rows = pack(data.train, policy.max_length)
    if config.objective != "rpt" or not config.filter_passes:
        return rows, 1.0
    softmax = item_softmax(spt, policy, rows)
    kept = within_reach(policy, rows, config, spt.mean_steps, spt.step_sampler, softmax, processes)
    if not len(kept):
        raise UserError(
            f"no training target reaches the first {config.filter_top} in {config.filter_passes} passes; "
            "pre-train longer, raise filter_top, or set filter_passes to 0",
            code="training.no_target",
        )
    return kept, kept.n_targets / rows.n_targets


def objective(
    policy: LARES, parent: ModelInfo, rows: Rows, config: RPTConfig, processes: Processes = ALONE
) -> Callable[[np.ndarray], tuple[Tensor, dict[str, float]]]:
    """RPT's loss against a frozen copy of the weights as they are now, or the SPT control's."""
    spt = _spt_config(parent)
    reseed(config.seed, 0)
    if config.objective == "spt":
        return make_loss(spt.replace(encoder="lares"), policy, rows, processes)
    reference = copy.deepcopy(policy).eval().requires_grad_(False) if config.beta else None
    return RPTLoss(
        policy,
        reference,
        rows,
        config,
        mean_steps=spt.mean_steps,
        step_sampler=spt.step_sampler,
        softmax=item_softmax(spt, policy, rows),
        processes=processes,
    )


def _spt_config(parent: ModelInfo) -> SequentialConfig:
    """How the model was pre-trained; a model that RPT made is post-trained with the defaults of its shape."""
    if parent.stage == "spt" and "encoder" in parent.config:
        if unknown := sorted(set(parent.config) - set(SequentialConfig.model_fields)):
            raise UserError(
                f"the model was pre-trained by a version with other settings ({', '.join(unknown)}; this one "
                f"writes schema_version {SCHEMA_VERSION}); run train-sequential again",
                code="manifest.other_version",
            )
        return config_from_dict(SequentialConfig, parent.config)
    return SequentialConfig(encoder="lares", mean_steps=parent.architecture["mean_steps"])
