"""From an evaluation's figures to the gate's decision, alike for rankings and for ratings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from latentrec.catalog import ITEMS_FILE, Catalogue
from latentrec.evaluation.evaluate_config import Champion, EvaluateConfig
from latentrec.evaluation.gate import ChampionScores, decide
from latentrec.evaluation.gate_decision import GateDecision


def champion_overlap(champion: Champion | None, catalogue: Catalogue) -> float | None:
    """Share of the smaller catalogue that champion and dataset have in common; ``None``: not known."""
    if champion is None or not (champion.directory / ITEMS_FILE).is_file():
        return None
    return catalogue.overlap(Catalogue.read(champion.directory / ITEMS_FILE))


def decide_for(
    config: EvaluateConfig,
    *,
    metric: str,
    users: np.ndarray,
    values: Mapping[str, np.ndarray],
    runs: Sequence[str],
    baselines: Collection[str],
    trivial: Collection[str],
    champion: Champion | None,
    overlap: float | None,
    unscorable: np.ndarray | None,
    trained_on: Mapping[str, np.ndarray],
    readable_share: float | None = None,
    not_for_promotion: str = "",
) -> GateDecision:
    """The gate's decision on a challenger of several training runs.

    Args:
        config: margin, floor, resampling, and which split was evaluated.
        metric: its name.
        users: int (S,), of the samples.
        values: model → float (S,), larger is better; without the champion where it was not scored.
        runs: the challenger's training runs; the first is the one to register. What one of them may have
            trained on counts for none.
        baselines, trivial, trained_on, readable_share, not_for_promotion: as of :func:`decide`.
        champion, overlap: who holds the alias, and its :func:`champion_overlap`.
        unscorable: bool (S,), samples whose target the champion cannot score.
    """
    leaked = [trained_on[run] for run in runs if run in trained_on]
    own = {runs[0]: np.logical_or.reduce(leaked)} if leaked else {}
    if config.split != "test":
        not_for_promotion = (
            f"the {config.split} split has been seen by training or model selection; evaluate on test"
        )
    return decide(
        metric=metric,
        users=users,
        challenger=np.stack([values[run] for run in runs]),
        baselines={name: values[name] for name in baselines},
        trivial=trivial,
        champion=None
        if champion is None
        else ChampionScores(
            champion.label, champion.version, values.get(champion.label), overlap, unscorable
        ),
        trained_on={**trained_on, **own},
        readable_share=readable_share,
        min_readable_share=config.min_readable_share,
        floor=config.floor,
        margin=config.promotion_margin,
        challenger_name=runs[0],
        not_for_promotion=not_for_promotion,
        n_resamples=config.n_resamples,
        seed=config.seed,
    )
