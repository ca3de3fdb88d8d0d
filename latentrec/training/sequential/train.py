"""``train-sequential``: popularity and the ID-based encoders, dataset directory in, model directory out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from latentrec.catalog import ITEMS_FILE, Catalogue
from latentrec.core import UserError
from latentrec.data import Dataset, Samples
from latentrec.models import ModelInfo, write_curve
from latentrec.models.popularity import Popularity, count_items
from latentrec.models.sequential import (
    LARES,
    SequenceEncoder,
    SequentialRecommender,
    build_encoder,
    save_encoder,
)
from latentrec.models.sequential.noise import rows_of
from latentrec.storage import ArtifactWriter, Manifest, check_output
from latentrec.training.common.checkpointing import Checkpoints
from latentrec.training.common.metric_logger import NO_METRICS, MetricLogger
from latentrec.training.common.world import check_enough, is_first_process, world_size
from latentrec.training.sequential.item_softmax import ItemSoftmax
from latentrec.training.sequential.processes import ALONE, Processes
from latentrec.training.sequential.rows import (
    Rows,
    collate,
    epoch_batches,
    one_row_per_sample,
    pack_by_user,
    rows_in,
)
from latentrec.training.sequential.sequential_config import SequentialConfig
from latentrec.training.sequential.spt import SPTLoss, part_of_cross_entropy
from latentrec.training.sequential.state import cpu_threads, reseed
from latentrec.training.sequential.training_loop import LoopResult, fit, validation_figures

STEP = "train-sequential"


@dataclass(frozen=True)
class SequentialData:
    """What a sequential trainer reads of a dataset directory."""

    dataset: Dataset
    catalogue: Catalogue
    train: Samples
    valid: Samples

    @classmethod
    def read(cls, directory: str | Path) -> SequentialData:
        """Open and check a dataset directory.

        Raises:
            UserError: not a finished dataset, or a split that training needs is empty.
        """
        dataset = Dataset(directory)
        train, valid = dataset.split("train"), dataset.split("valid")
        for name, samples in (("train", train), ("valid", valid)):
            if not len(samples):
                raise UserError(
                    f"{directory}/{name}.parquet is empty; lower --k-core or widen the window in data-prep",
                    code="dataset.nothing_left",
                )
        return cls(dataset, Catalogue.from_dataset(dataset), train, valid)

    @property
    def longest_history(self) -> int:
        """Items in the longest history of training and validation."""
        return int(max(np.diff(part.history_offsets).max(initial=1) for part in (self.train, self.valid)))


def train_sequential(
    config: SequentialConfig,
    *,
    dataset: str | Path,
    output: str | Path,
    metric_logger: MetricLogger = NO_METRICS,
    checkpoint_root: str | None = None,
) -> Manifest | None:
    """Train one model and write its directory.

    Under ``torchrun`` the processes share every batch; popularity, which only counts, is the first one's.

    Args:
        config: see :class:`SequentialConfig`.
        dataset: dataset directory.
        output: model directory to make.
        metric_logger: receives curves while training runs.
        checkpoint_root: directory or gs:// location; the same work resumes from there.

    Returns:
        The manifest of the model directory; ``None`` on every process but the first.

    Raises:
        UserError: the dataset or a setting is unusable; nothing is written.
    """
    check_output(output, kind="model", inputs=[dataset])
    config.check_world(world_size())
    data = SequentialData.read(dataset)
    if config.encoder == "popularity":
        if not is_first_process():
            return None
        return _write_popularity(config, data, output, metric_logger)
    processes = Processes.join()
    trials: list[tuple[SequentialConfig, SequenceEncoder, LoopResult]] = []
    with cpu_threads(1), ExitStack() as stack:
        for variant in config.variants():
            checkpoints = open_checkpoints(stack, checkpoint_root, STEP, variant, data.dataset.fingerprint)
            encoder, result = train_encoder(variant, data, metric_logger, checkpoints, processes)
            trials.append((variant, encoder, result))
        if not processes.is_first:
            return None
        variant, encoder, result = max(trials, key=lambda trial: trial[2].best_value)
        with ArtifactWriter(output, "model", config, {"dataset": data.dataset.fingerprint}) as artifact:
            info = ModelInfo(
                system=variant.encoder,
                stage="spt" if variant.encoder == "lares" else "sequential",
                config=variant.to_dict(),
                architecture=encoder.architecture(),
                metrics=result.metrics,
                dataset_fingerprint=data.dataset.fingerprint,
                parent=None,
                train_end=data.dataset.train_end,
                notes=_tuning_notes(config, trials),
            )
            write_encoder(artifact, encoder, data, info, result)
    return artifact.manifest


def write_encoder(
    artifact: ArtifactWriter,
    encoder: SequenceEncoder,
    data: SequentialData,
    info: ModelInfo,
    result: LoopResult,
) -> None:
    """Fill a model directory: weights, catalogue, ``model.json``, training curve."""
    save_encoder(encoder, artifact.path)
    data.catalogue.write(artifact.path / ITEMS_FILE)
    info.write(artifact.path)
    write_curve(artifact.path, result.curve, result.early_stopping.history)
    artifact.counts = {"parameters": sum(value.numel() for value in encoder.parameters())}


def open_checkpoints(
    stack: ExitStack, root: str | None, step: str, config: Any, dataset: str, parent: str | None = None
) -> Checkpoints | None:
    """The checkpoints of this work until ``stack`` ends; ``None`` without a root: an epoch's checkpoint
    would be of no use."""
    if root is None:
        return None
    return stack.enter_context(Checkpoints(root, step=step, config=config, dataset=dataset, parent=parent))


def train_encoder(
    config: SequentialConfig,
    data: SequentialData,
    metric_logger: MetricLogger,
    checkpoints: Checkpoints | None,
    processes: Processes = ALONE,
) -> tuple[SequenceEncoder, LoopResult]:
    """Train one variant to its early stop; the encoder returned holds the best epoch's weights."""
    reseed(config.seed, 0)  # processes begin with the same weights, too
    encoder = build_encoder(
        config.encoder, config.architecture(data.dataset.n_items, data.longest_history)
    ).to(processes.device)
    pack = pack_by_user if config.packing == "rows" else one_row_per_sample
    rows = pack(data.train, encoder.max_length)
    batch_size = config.targets_per_batch(rows.n_targets)
    check_enough(f"a step has {batch_size} targets", batch_size, processes.size)
    recommender = SequentialRecommender(encoder, data.catalogue)
    result = fit(
        encoder,
        make_loss(config, encoder, rows, processes),
        lambda epoch: epoch_batches(rows, batch_size, config.seed, epoch),
        lambda: validation_figures(recommender, data.valid, processes),
        config,
        metric_logger,
        checkpoints,
        label=config.encoder,
        processes=processes,
    )
    return encoder, result


def make_loss(
    config: SequentialConfig, encoder: SequenceEncoder, rows: Rows, processes: Processes = ALONE
) -> Callable[[np.ndarray], tuple[Tensor, dict[str, float]]]:
    """The training objective: SPT for LARES, else cross-entropy of the next item over the catalogue."""
    softmax = item_softmax(config, encoder, rows)
    if isinstance(encoder, LARES):
        return SPTLoss(encoder, rows, config, softmax, processes)
    device = next(encoder.parameters()).device

    def next_item_loss(indices: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        whole = collate(rows, indices, encoder.n_items, device)
        part = processes.part(len(indices))
        batch = rows_in(whole, part)
        softmax.draw(device)
        with rows_of(part):
            states_PD = encoder.states(batch.items_BL)[batch.counted_BL]
        return part_of_cross_entropy(softmax.of(encoder, states_PD), batch, whole), {}

    return next_item_loss


def item_softmax(config: SequentialConfig, encoder: SequenceEncoder, rows: Rows) -> ItemSoftmax:
    """The softmax over items that a configuration asks for."""
    draws = config.negatives_drawn(encoder.n_items)
    return ItemSoftmax.over(encoder.n_items, rows, draws, config.negative_sampling)


def _tuning_notes(
    config: SequentialConfig, trials: list[tuple[SequentialConfig, SequenceEncoder, LoopResult]]
) -> list[str]:
    if len(trials) < 2:
        return []
    given = trials[0][0].to_dict()
    lines = []
    for variant, _, result in trials:
        changed = {k: v for k, v in variant.to_dict().items() if v != given[k]}
        lines.append(f"tuning on validation: {changed or 'as given'} → NDCG@10 {result.best_value:.4f}")
    return lines


def _write_popularity(
    config: SequentialConfig, data: SequentialData, output: str | Path, metric_logger: MetricLogger
) -> Manifest:
    counts = data.catalogue.train_counts.astype(np.float32)
    if config.popularity_days is not None:
        counts = count_items(
            data.train.targets,
            data.train.timestamps,
            data.catalogue.n_items,
            days=config.popularity_days,
            train_end=data.dataset.train_end,
        )
    model = Popularity(counts)
    metrics = validation_figures(model, data.valid)
    metric_logger.log_metrics({f"valid/{name}": value for name, value in metrics.items()}, step=0)
    with ArtifactWriter(output, "model", config, {"dataset": data.dataset.fingerprint}) as artifact:
        model.save(artifact.path)
        data.catalogue.write(artifact.path / ITEMS_FILE)
        ModelInfo(
            system="popularity",
            stage="sequential",
            config=config.to_dict(),
            architecture={"n_items": data.catalogue.n_items},
            metrics=metrics,
            dataset_fingerprint=data.dataset.fingerprint,
            parent=None,
            train_end=data.dataset.train_end,
        ).write(artifact.path)
    return artifact.manifest
