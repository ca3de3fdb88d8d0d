"""The promotion gate: may the challenger take the alias ``champion``?

Pure arithmetic on per-sample values of models that were scored in the same run on the same samples. Moving
the alias is the registry's work, which checks again that the champion is still the one that was compared.

The challenger passes when all of these hold, over the samples that none of the compared models can have
trained on:

1. at least ``min_readable_share`` of its answers could be read (models that write their answer as text);
2. it is above every *trivial* baseline (popularity; for ratings the constants and bias models) by more than
   a numeric tolerance;
3. no baseline of the run is better by more than the paired interval allows (``floor="strongest"``);
4. the lower end of the one-sided 95 % paired interval of challenger − champion is above the margin.

Users are the unit of resampling, and training runs too where a model was trained with several seeds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from latentrec.catalog import MIN_OVERLAP
from latentrec.core import UserError
from latentrec.evaluation.gate_decision import (
    BELOW_BASELINE,
    FLOORS,
    LABELS,
    NOT_ABOVE_CHAMPION,
    NOT_ABOVE_TRIVIAL,
    NOT_COMPARABLE,
    PASSED,
    UNREADABLE,
    BaselineComparison,
    GateDecision,
)
from latentrec.metrics import ClusterBootstrap

TOLERANCE = 1e-6
"""Differences up to this are rounding, not evidence."""


@dataclass(frozen=True)
class ChampionScores:
    """The current champion on the same samples.

    Attributes:
        name: label in tables.
        version: registered version, recorded for the alias move.
        values: float (S,), larger is better; ``None`` where the catalogues have too little in common for
            scores to mean anything.
        overlap: share of the smaller catalogue that both have; ``None``: unknown.
        unscorable: bool (S,), samples whose target it cannot rank (its value there is 0).
    """

    name: str
    version: str | None = None
    values: np.ndarray | None = None
    overlap: float | None = None
    unscorable: np.ndarray | None = None


def decide(
    *,
    metric: str,
    users: np.ndarray,
    challenger: np.ndarray,
    baselines: Mapping[str, np.ndarray],
    trivial: Collection[str] = ("popularity",),
    champion: ChampionScores | None = None,
    trained_on: Mapping[str, np.ndarray] | None = None,
    readable_share: float | None = None,
    min_readable_share: float = 0.95,
    floor: str = "strongest",
    margin: float = 0.0,
    challenger_name: str = "challenger",
    not_for_promotion: str = "",
    n_resamples: int = 2000,
    seed: int = 42,
) -> GateDecision:
    """Decide on promotion; see the module's text for the rules.

    Args:
        metric: its name, for the record.
        users: int (S,), the unit of resampling.
        challenger: float (S,), larger is better; (R, S) for R training runs of the same recipe.
        baselines: name → float (S,) or (R, S), every baseline of the run.
        trivial: names among them that the challenger has to exceed, not only to equal.
        champion: the model that has the alias; ``None``: none has it.
        trained_on: model → bool (S,), samples that it may have trained on; absent: none.
        readable_share: share of the challenger's answers that could be read; ``None``: not a text answer.
        min_readable_share: least share that passes.
        floor: ``strongest`` or ``popularity`` (rule 3 is left out).
        margin: promotion margin over the champion.
        challenger_name: label.
        not_for_promotion: why these figures cannot decide, with the cure; empty: they can.
        n_resamples, seed: of the bootstrap.

    Raises:
        UserError: there are no samples, or a value is not finite.
        ValueError: unknown ``floor``.
    """
    if floor not in FLOORS:
        raise ValueError(f"floor is {floor!r}, expected one of {FLOORS}")
    if len(users) == 0:
        raise UserError(
            "the gate has no samples to decide on; check the dataset's split", code="gate.no_samples"
        )
    values = {challenger_name: np.atleast_2d(challenger)}
    values |= {name: np.atleast_2d(column) for name, column in baselines.items()}
    if champion is not None and champion.values is not None:
        values[champion.name] = np.atleast_2d(champion.values)
    for name, rows in values.items():
        if not np.isfinite(rows).all():
            raise UserError(
                f"the gate's model {name} has values of {metric} that are not finite", code="gate.not_finite"
            )

    seen = {name: rows for name, rows in (trained_on or {}).items() if name in values and rows.any()}
    usable = ~np.logical_or.reduce([np.zeros(len(users), bool), *seen.values()])
    draft = _Draft(metric=metric, challenger_name=challenger_name, floor=floor, margin=margin)
    draft.figures |= {
        "n_samples": int(usable.sum()),
        "n_users": len(np.unique(users[usable])),
        "n_left_out": int((~usable).sum()),
        "left_out_by": {name: int(rows.sum()) for name, rows in seen.items()},
        "readable_share": readable_share,
        "min_readable_share": min_readable_share,
        "n_runs": len(values[challenger_name]),
    }
    if champion is not None:
        draft.figures |= {
            "champion_name": champion.name,
            "champion_overlap": champion.overlap,
            "expected_champion": champion.version,
        }
    counted = usable if usable.any() else np.ones(len(users), bool)
    draft.challenger = float(values[challenger_name][:, counted].mean())
    refusal = _not_comparable(champion, usable, not_for_promotion, seen)
    if refusal:
        return draft.decision(NOT_COMPARABLE, refusal)

    paired = ClusterBootstrap(users[usable], n_resamples=n_resamples, seed=seed)
    own = values[challenger_name][:, usable]
    draft.baselines = sorted(
        (_compare(name, own, values[name][:, usable], paired) for name in baselines),
        key=lambda row: -row.value,
    )
    better_than_champion = True
    if champion is not None:
        theirs = values[champion.name][:, usable]
        low, _ = paired.one_sided_interval(own, theirs)
        draft.figures |= {
            "champion": float(theirs.mean()),
            "difference": float(own.mean() - theirs.mean()),
            "low": low,
            "champion_unscorable_share": (
                0.0 if champion.unscorable is None else float(champion.unscorable[usable].mean())
            ),
        }
        better_than_champion = low > margin + TOLERANCE
    return draft.decision(*_outcome(draft, trivial, better_than_champion))


@dataclass
class _Draft:
    """A decision in the making."""

    metric: str
    challenger_name: str
    floor: str
    margin: float
    challenger: float = 0.0
    baselines: Sequence[BaselineComparison] = ()
    figures: dict[str, Any] = field(default_factory=dict)

    def decision(self, code: str, why: str) -> GateDecision:
        label = LABELS.get(self.metric, self.metric)
        verb = "passes" if code == PASSED else "does not pass"
        if code == NOT_COMPARABLE:
            reason = f"{self.challenger_name} {verb} the gate: not comparable, {why}"
        else:
            reason = (
                f"{self.challenger_name} {verb} the gate: {why}; its {label} is {self.challenger:.4f} over "
                f"{self.figures['n_samples']:,} samples of {self.figures['n_users']:,} users"
                f"{_left_out(self.figures)}{_standings(self.baselines)}"
            )
        return GateDecision(
            promote=code == PASSED,
            code=code,
            reason=reason,
            metric=self.metric,
            challenger=self.challenger,
            challenger_name=self.challenger_name,
            baselines=tuple(self.baselines),
            floor=self.floor,
            margin=self.margin,
            **self.figures,
        )


def _not_comparable(
    champion: ChampionScores | None,
    usable: np.ndarray,
    not_for_promotion: str,
    seen: Mapping[str, np.ndarray],
) -> str:
    """Why there is nothing to compare on, with the cure; empty where there is."""
    if champion is not None and champion.overlap is not None and champion.overlap < MIN_OVERLAP:
        return (
            f"the catalogue of the champion {champion.name} has {champion.overlap:.0%} of its items in "
            f"common with this one, less than {MIN_OVERLAP:.0%}: another shop needs a model name of its own "
            "(the pipeline's model name, or register --name)"
        )
    if not_for_promotion:
        return not_for_promotion
    if not usable.any():
        return (
            f"every sample may have been in the training of {', '.join(seen)}; evaluate on events after the "
            "newest training period"
        )
    if champion is not None and champion.values is None:
        return f"the champion {champion.name} could not be scored"
    return ""


def _compare(
    name: str, own_RS: np.ndarray, baseline_RS: np.ndarray, paired: ClusterBootstrap
) -> BaselineComparison:
    low, high = paired.one_sided_interval(own_RS, baseline_RS)
    stands = "above" if high < -TOLERANCE else "below" if low > TOLERANCE else "level"
    value = float(baseline_RS.mean())
    return BaselineComparison(name, value, float(own_RS.mean() - value), low, high, stands)


def _outcome(draft: _Draft, trivial: Collection[str], better_than_champion: bool) -> tuple[str, str]:
    figures = draft.figures
    readable, least = figures["readable_share"], figures["min_readable_share"]
    if readable is not None and readable < least:
        return UNREADABLE, f"{readable:.1%} of its answers can be read, at least {least:.1%} must be"
    for row in draft.baselines:
        if row.name in trivial and row.difference <= TOLERANCE:
            return NOT_ABOVE_TRIVIAL, f"it is not above the baseline {row.name} ({row.value:.4f})"
    if draft.floor == "strongest":
        for row in draft.baselines:
            if row.stands == "above":
                return BELOW_BASELINE, (
                    f"the baseline {row.name} is better ({row.value:.4f}, by {-row.difference:.4f}, at least "
                    f"{-row.high:.4f} with 95 % confidence)"
                )
    if figures.get("champion_name") is None:
        return PASSED, "there is no champion yet and no baseline is better"
    compared = (
        f"minus the champion {figures['champion_name']} ({figures['champion']:.4f}) it is "
        f"{figures['difference']:+.4f}, at least {figures['low']:+.4f} with 95 % confidence, "
        f"{'above' if better_than_champion else 'not above'} the margin {draft.margin:g}"
    )
    return (PASSED if better_than_champion else NOT_ABOVE_CHAMPION), compared


def _left_out(figures: Mapping[str, Any]) -> str:
    if not figures["n_left_out"]:
        return ""
    names = ", ".join(figures["left_out_by"])
    return f" ({figures['n_left_out']:,} left out that may have been in the training of {names})"


def _standings(baselines: Sequence[BaselineComparison]) -> str:
    """Where each baseline stands: ``; baselines: sasrec 0.1849 above, popularity 0.0500 below``."""
    if not baselines:
        return ""
    return "; baselines: " + ", ".join(f"{row.name} {row.value:.4f} {row.stands}" for row in baselines)
