"""The promotion gate (contracts.md): may the challenger take the champion's alias?

Pure arithmetic on per-sample values of models scored in the same run on the same samples; moving the alias
is the registry's work, which checks again that the champion is still the one that was compared.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from latentrec.core import UserError
from latentrec.metrics import ClusterBootstrap


@dataclass(frozen=True)
class GateDecision:
    """The verdict with the figures that made it.

    Attributes:
        promote: the alias may move.
        reason: one sentence for people.
        metric: name; larger is better (errors are negated).
        challenger, floor: point estimates over all samples.
        champion: point estimate over the comparable samples; ``None`` where there is no champion.
        difference: challenger minus champion over the comparable samples.
        low: lower end of the one-sided 95 % paired bootstrap interval of ``difference``, users resampled.
        margin: ``low`` must be above it.
        comparable: at least one sample that the champion cannot have trained on.
        n_samples, n_users: comparable samples and their users (all, where there is no champion).
        champion_unscorable_share: share of those samples whose target the champion cannot rank.
        challenger_name, champion_name, floor_name: labels.
        expected_champion: registered version that the alias must still point at when it is moved;
            ``None``: there must still be no champion.
    """

    promote: bool
    reason: str
    metric: str
    challenger: float
    floor: float
    champion: float | None = None
    difference: float | None = None
    low: float | None = None
    margin: float = 0.0
    comparable: bool = True
    n_samples: int = 0
    n_users: int = 0
    champion_unscorable_share: float = 0.0
    challenger_name: str = "challenger"
    champion_name: str | None = None
    floor_name: str = "popularity"
    expected_champion: str | None = None

    def write(self, path: Path) -> None:
        """Write ``gate.json``."""
        path.write_text(json.dumps(asdict(self), indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | Path) -> GateDecision:
        """Read ``gate.json``.

        Raises:
            UserError: no such file, or not a decision.
        """
        try:
            return cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path}: not a gate decision ({error}); run evaluate again") from None


def decide(
    *,
    metric: str,
    users: np.ndarray,
    challenger: np.ndarray,
    floor: np.ndarray,
    champion: np.ndarray | None = None,
    comparable: np.ndarray | None = None,
    unscorable: np.ndarray | None = None,
    margin: float = 0.0,
    challenger_name: str = "challenger",
    champion_name: str = "champion",
    floor_name: str = "popularity",
    champion_version: str | None = None,
    n_resamples: int = 2000,
    seed: int = 42,
) -> GateDecision:
    """Decide on promotion.

    Args:
        metric: its name, for the record.
        users: int (S,), the unit of resampling.
        challenger, floor, champion: float (S,), per-sample values, larger is better; ``champion`` is
            ``None`` where no alias is set.
        comparable: bool (S,), samples that the champion cannot have trained on; ``None``: all.
        unscorable: bool (S,), samples whose target the champion cannot rank (its value there is 0).
        margin: promotion margin.
        champion_version: registered version of the champion, recorded for the alias move.

    Raises:
        UserError: there is nothing to judge on, or a value is not finite.
    """
    if len(users) == 0:
        raise UserError("the gate has no samples to judge on; check the dataset's split")
    for name, values in (("challenger", challenger), ("champion", champion), ("floor", floor)):
        if values is not None and not np.isfinite(values).all():
            raise UserError(f"the gate's {name} has values of {metric} that are not finite")
    challenger_value, floor_value = float(np.mean(challenger)), float(np.mean(floor))
    above_floor = challenger_value > floor_value
    against_floor = (
        f"{challenger_name} has {metric} {challenger_value:.4f}, "
        f"{'above' if above_floor else 'not above'} the floor {floor_name} ({floor_value:.4f})"
    )
    figures: dict[str, Any] = {
        "metric": metric,
        "challenger": challenger_value,
        "floor": floor_value,
        "margin": margin,
        "challenger_name": challenger_name,
        "floor_name": floor_name,
    }
    if champion is None:
        reason = f"{'promoted' if above_floor else 'refused'}: no champion yet; {against_floor}"
        return GateDecision(
            promote=above_floor,
            reason=reason,
            n_samples=len(users),
            n_users=len(np.unique(users)),
            **figures,
        )

    chosen = np.ones(len(users), bool) if comparable is None else np.asarray(comparable, bool)
    figures |= {"champion_name": champion_name, "expected_champion": champion_version}
    if not chosen.any():
        reason = (
            f"refused: not comparable; every test sample may have been in the training of {champion_name}"
        )
        return GateDecision(promote=False, reason=reason, comparable=False, **figures)
    paired = ClusterBootstrap(users[chosen], n_resamples=n_resamples, seed=seed)
    difference = challenger[chosen] - champion[chosen]
    low = float(np.percentile(paired.resampled_means(difference[:, None]), 5))
    better = low > margin
    mean = float(difference.mean())
    reason = (
        f"{'promoted' if better and above_floor else 'refused'}: {challenger_name} minus {champion_name} is "
        f"{mean:+.4f} {metric}, one-sided 95 % lower end {low:+.4f}, "
        f"{'above' if better else 'not above'} the margin {margin:g}; {against_floor}"
    )
    return GateDecision(
        promote=better and above_floor,
        reason=reason,
        champion=float(champion[chosen].mean()),
        difference=mean,
        low=low,
        n_samples=int(chosen.sum()),
        n_users=paired.n_clusters,
        champion_unscorable_share=0.0 if unscorable is None else float(unscorable[chosen].mean()),
        **figures,
    )
