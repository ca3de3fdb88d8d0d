"""The weight α of a mixture of a title model with an ID-based assistant, chosen on validation."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from latentrec.catalog import Catalogue
from latentrec.data import Dataset, sample_at_most
from latentrec.evaluation.ranking.candidates import leave_out, owned_items
from latentrec.evaluation.ranking.scoring import score_model

ALPHAS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Weights of the language model that are tried; at 1 it ranks alone."""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AlphaChoice:
    """What was tried.

    Attributes:
        alpha: the weight chosen.
        metric: it was chosen on.
        values: weight → mean of the metric on the validation samples.
        n_samples: validation samples; 0: the weight was given.
    """

    alpha: float
    metric: str = ""
    values: dict[str, float] = field(default_factory=dict)
    n_samples: int = 0

    @property
    def note(self) -> str:
        """What has to be said of a mixture in which the language model has the least say; else empty."""
        if not self.n_samples or self.alpha > min(ALPHAS):
            return ""
        return " That is the smallest weight tried: these lists are mostly the assistant's."


def choose_alpha(
    recommender: Any,
    dataset: Dataset,
    catalogue: Catalogue,
    *,
    metric: str,
    n_samples: int,
    exclude_history: bool,
    batch_size: int,
    seed: int,
) -> AlphaChoice:
    """Set ``recommender.alpha`` to the weight that is best on a seeded draw of the validation split.

    Of equal weights the largest is taken: the assistant has a say only where it helps. Without validation
    samples the language model ranks alone.

    Args:
        recommender: a title model with its assistant; its ``alpha`` is set.
        dataset: whose validation split is read.
        catalogue: that is ranked.
        metric: of the promotion gate.
        n_samples: validation samples at most.
        exclude_history: as it will be served.
        batch_size: users decoded together.
        seed: of the draw.
    """
    valid = dataset.split("valid")
    valid = valid.subset(sample_at_most(len(valid), n_samples, seed))
    if len(valid) == 0:
        _logger.warning("%s: no validation samples to choose alpha on; it ranks alone", recommender.name)
        recommender.alpha = 1.0
        return AlphaChoice(1.0)
    excluded = leave_out(owned_items(dataset, valid)) if exclude_history else None
    values = {}
    for alpha in ALPHAS:
        recommender.alpha = alpha
        scored = score_model(recommender, valid, catalogue, batch_size=batch_size, excluded=excluded)
        values[alpha] = float(scored.values(metric).mean())
    best = max(values, key=lambda alpha: (values[alpha], alpha))
    recommender.alpha = best
    shown = ", ".join(f"{alpha:g}: {value:.4f}" for alpha, value in values.items())
    _logger.info(
        "%s: alpha %g by %s on %d validation samples (%s)", recommender.name, best, metric, len(valid), shown
    )
    return AlphaChoice(best, metric, {f"{alpha:g}": value for alpha, value in values.items()}, len(valid))
