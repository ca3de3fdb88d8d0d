"""Score one cell's model: α on validation, then the test split, once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.results.cell import Cell
from latentrec.catalog import Catalogue
from latentrec.data import Dataset, Samples
from latentrec.decoding import MIXED, DecodingOptions, load_recommender
from latentrec.evaluation.ranking.scoring import ModelScores, score_model

ALPHAS = (0.3, 0.5, 0.7, 0.9)
ALPHA_SAMPLES = 250
VALIDATION_SAMPLES = 600


@dataclass(frozen=True)
class CellScores:
    """Validation figures (a seeded draw), the α chosen on them, the scores on test and whose they are."""

    validation: dict[str, float]
    alpha: float | None
    alphas: dict[str, float]
    test: ModelScores
    test_users: np.ndarray


def score_models(
    cell: Cell,
    dataset: Path,
    models: dict[str, Path],
    *,
    validation_samples: int = 0,
    test_samples: int = 0,
    dtype: str = "float32",
) -> CellScores:
    """Choose on validation, then score the test split.

    Args:
        cell: what to decode and how.
        dataset: the dataset directory.
        models: cell name → model directory, for this dataset and seed.
        validation_samples: choose on a seeded draw of so many validation samples; 0:
            :data:`ALPHA_SAMPLES` where α is chosen, else :data:`VALIDATION_SAMPLES`.
        test_samples: score a seeded draw of so many test samples; 0: all.
        dtype: of title models' weights.
    """
    data = Dataset(dataset)
    catalogue = Catalogue.from_dataset(data)
    usual = ALPHA_SAMPLES if cell.decoding in MIXED else VALIDATION_SAMPLES
    valid = draw(data.split("valid"), validation_samples or usual)
    scored: dict[float | None, ModelScores] = {}
    recommender = _recommender(cell, catalogue, models, dtype)
    for value in ALPHAS if cell.decoding in MIXED else (None,):
        if value is not None:
            recommender.alpha = value
        scored[value] = score_model(recommender, valid, catalogue)
    test = data.split("test")
    test = draw(test, test_samples or len(test))
    alpha = max(scored, key=lambda value: _mean(scored[value], "ndcg_at_10"))
    if alpha is not None:
        recommender.alpha = alpha
    return CellScores(
        validation={name: _mean(scored[alpha], name) for name in ("hr_at_5", "ndcg_at_10")},
        alpha=alpha,
        alphas={
            str(value): _mean(scores, "ndcg_at_10") for value, scores in scored.items() if value is not None
        },
        test=score_model(recommender, test, catalogue),
        test_users=test.user_ids,
    )


def _mean(scores: ModelScores, metric: str) -> float:
    return float(scores.values(metric).mean())


def draw(samples: Samples, count: int) -> Samples:
    """The same seeded draw of samples for every cell of a dataset."""
    if len(samples) <= count:
        return samples
    return samples.subset(np.sort(np.random.default_rng(42).choice(len(samples), count, replace=False)))


def _recommender(cell: Cell, catalogue: Catalogue, models: dict[str, Path], dtype: str) -> Any:
    directory = models[cell.model or cell.name]
    mixed = cell.decoding in MIXED
    recommender = load_recommender(
        directory,
        catalogue,
        DecodingOptions(decoding=cell.decoding, alpha=ALPHAS[0] if mixed else 1.0, dtype=dtype),
        name=cell.name,
        assistant_dir=models["sasrec"] if mixed else None,
    )
    if cell.latents != "own":
        _replace_latents(recommender, cell.latents)
    return recommender


def _replace_latents(recommender: Any, control: str) -> None:
    """Let the decoder read other latents than the model's own: the batch's mean, or the neighbor's."""
    model = recommender.model
    begin = model.begin_answer

    def begin_with_other_latents(state: Any) -> Any:
        own_BND = model.roll_out(state).means_BMND[:, 0]
        if control == "mean":
            other_BND = own_BND.mean(dim=0, keepdim=True).expand_as(own_BND)
        else:
            other_BND = own_BND.roll(max(1, len(own_BND) // 2), dims=0)
        return begin(state, latents_BND=other_BND)

    model.begin_answer = torch.no_grad()(begin_with_other_latents)
