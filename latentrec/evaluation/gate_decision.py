"""The gate's decision as a record: outcome, reason and the figures behind it; ``gate.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from latentrec.core import UserError
from latentrec.core.documents import parse_document
from latentrec.core.text import one_line

SCHEMA_VERSION = 2
FLOORS = ("strongest", "popularity")
LABELS = {
    "ndcg_at_10": "NDCG@10",
    "ndcg_at_5": "NDCG@5",
    "hr_at_10": "HR@10",
    "hr_at_5": "HR@5",
    "mrr_at_10": "MRR@10",
    "neg_mae": "−MAE",
}

PASSED = "passed"
NOT_COMPARABLE = "not_comparable"
UNREADABLE = "unreadable"
NOT_ABOVE_TRIVIAL = "not_above_trivial_baseline"
BELOW_BASELINE = "below_baseline"
NOT_ABOVE_CHAMPION = "not_above_champion"


@dataclass(frozen=True)
class BaselineComparison:
    """One baseline beside the challenger.

    Attributes:
        name: of the baseline.
        value: its mean of the metric.
        difference: challenger minus baseline.
        low, high: ends of the one-sided 95 % paired intervals of ``difference``.
        stands: where the baseline stands: ``below`` the challenger, ``level`` with it, or ``above`` it,
            beyond the interval.
    """

    name: str
    value: float
    difference: float
    low: float
    high: float
    stands: str


@dataclass(frozen=True)
class GateDecision:
    """The decision with the figures that made it, all over the same samples.

    Attributes:
        promote: the alias may move.
        code: stable name of the outcome: ``passed``, ``not_comparable``, ``unreadable``,
            ``not_above_trivial_baseline``, ``below_baseline`` or ``not_above_champion``.
        reason: one sentence for people, with where each baseline stands.
        metric: name; larger is better (errors are negated).
        challenger: mean of the metric over the samples that count.
        baselines: every baseline of the run beside the challenger, best first.
        floor: ``strongest`` (no baseline may be better) or ``popularity`` (only trivial baselines count).
        champion, difference, low: mean of the champion, challenger minus champion, and the lower end of its
            one-sided 95 % interval; ``None`` where there is no champion or none to compare with.
        margin: ``low`` must be above it.
        n_samples, n_users: that count.
        n_left_out: samples that do not count, because a compared model may have trained on them.
        left_out_by: model → how many samples it may have trained on.
        champion_overlap: share of the smaller catalogue that champion and challenger have in common.
        champion_unscorable_share: share of the samples whose target the champion cannot rank.
        readable_share: share of the challenger's answers that could be read; ``None``: it ranks items.
        min_readable_share: what was asked for.
        n_runs: training runs (seeds) of the challenger that were compared.
        challenger_name, champion_name: labels.
        expected_champion: registered version that the alias must still point at when it is moved;
            ``None``: there must still be no champion.
    """

    promote: bool
    code: str
    reason: str
    metric: str
    challenger: float
    challenger_name: str = "challenger"
    baselines: tuple[BaselineComparison, ...] = ()
    floor: str = "strongest"
    champion: float | None = None
    difference: float | None = None
    low: float | None = None
    margin: float = 0.0
    n_samples: int = 0
    n_users: int = 0
    n_left_out: int = 0
    left_out_by: dict[str, int] = field(default_factory=dict)
    champion_name: str | None = None
    champion_overlap: float | None = None
    champion_unscorable_share: float = 0.0
    readable_share: float | None = None
    min_readable_share: float = 0.95
    n_runs: int = 1
    expected_champion: str | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def comparable(self) -> bool:
        """Whether there was anything to compare on."""
        return self.code != NOT_COMPARABLE

    @property
    def metric_label(self) -> str:
        """The metric as people write it."""
        return LABELS.get(self.metric, self.metric)

    def write(self, path: Path) -> None:
        """Write ``gate.json``."""
        path.write_text(json.dumps(asdict(self), indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | Path) -> GateDecision:
        """Read ``gate.json``.

        Raises:
            UserError: no such file, or not a decision of this version.
        """
        try:
            content = parse_document(Path(path).read_bytes())
            if content.get("schema_version") != SCHEMA_VERSION:
                raise ValueError(f"schema_version is {content.get('schema_version')}, not {SCHEMA_VERSION}")
            rows = tuple(BaselineComparison(**row) for row in content.pop("baselines"))
            return cls(baselines=rows, **content)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            reason = one_line(error)
            raise UserError(
                f"{path}: not a gate decision ({reason}); run evaluate again", code="gate.unreadable"
            ) from None
