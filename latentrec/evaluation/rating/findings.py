"""What the figures of a rating evaluation say in words: against the floor, why not better, where RL began.

Every sentence is made from numbers of this evaluation; none is fixed text about a model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from latentrec.evaluation.rating.rating_scores import RatingScores
from latentrec.models import ModelInfo


def against_the_floor(
    challenger: RatingScores,
    floor: RatingScores,
    median: RatingScores,
    comparison: Mapping[str, Any],
    truth: np.ndarray,
) -> list[str]:
    """Whether the challenger's error is below the floor's, and where it is not, what stands in its way.

    Args:
        challenger, floor, median: scores of the challenger, the strongest constant or bias model, and the
            global median.
        comparison: paired difference of absolute errors, challenger minus floor: ``difference, low, high``.
        truth: float64 (S,), the true ratings.
    """
    difference, low, high = (comparison[name] for name in ("difference", "low", "high"))
    interval = f"{difference:+.4f} stars, 95 % interval [{low:+.4f}, {high:+.4f}], paired"
    name = challenger.name
    if high < 0:
        said = [f"{name} beats the {floor.name}: its mean absolute error differs by {interval}."]
    elif low > 0:
        said = [f"{name} does not beat the {floor.name}, it is worse: {interval}."]
    else:
        said = [
            f"{name} does not beat the {floor.name}; which of the two is better is not decided: {interval}."
        ]
    return said + _what_it_does(challenger, median, truth) + ([] if high < 0 else _obstacles(floor, truth))


def _what_it_does(challenger: RatingScores, median: RatingScores, truth: np.ndarray) -> list[str]:
    """How much the predictions vary, and whether they say more than one number for all would."""
    read = np.isfinite(challenger.predicted)
    if not read.any():
        return ["None of its answers could be read, so every sample is scored with the user's mean."]
    given = challenger.predicted[read]
    value, count = Counter(np.round(given, 2).tolist()).most_common(1)[0]
    if given.std() > 0:
        share = count / len(given)
        said = f"It gives {len(np.unique(given)):,} different ratings, {value:g} to {share:.1%} of all"
        if truth[read].std() > 0:
            said += f"; their correlation with the truth is {np.corrcoef(given, truth[read])[0, 1]:.2f}"
    else:
        said = f"It gives {value:g} to every sample, the same for every user and item"
    own, constant = float(challenger.errors.absolute.mean()), float(median.errors.absolute.mean())
    relation = "as much as" if abs(own - constant) < 5e-5 else "less than" if own < constant else "more than"
    return [f"{said}. It errs by {own:.4f} on average, {relation} the global median ({constant:.4f})."]


def _obstacles(floor: RatingScores, truth: np.ndarray) -> list[str]:
    star, count = Counter(np.round(truth, 2).tolist()).most_common(1)[0]
    return [
        f"{count / len(truth):.1%} of the true ratings are {star:g}, and the {floor.name} errs by "
        f"{floor.errors.absolute.mean():.4f}: what is left to gain lies in telling the others apart."
    ]


def where_it_began(infos: Mapping[str, ModelInfo]) -> list[str]:
    """The format validity from which each model's training started, sampled on validation prompts."""
    said = []
    for name, info in infos.items():
        before, after = info.metrics.get("start_format_valid"), info.metrics.get("end_format_valid")
        if before is None or after is None:
            continue
        kind = "The cold start" if info.stage == "cold_start_sft" else "Reinforcement learning"
        said.append(f"{kind} of {name} starts at {before:.1%} valid answers and ends at {after:.1%}.")
    return said


def by_name(scores: Sequence[RatingScores], name: str) -> RatingScores:
    """The scores of one model."""
    return next(score for score in scores if score.name == name)
