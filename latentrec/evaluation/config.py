"""What an evaluation is asked to do, and who holds the crown that it may take away."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from latentrec.core import UserError, option
from latentrec.data import SPLITS
from latentrec.decoding.load import ASSISTED, LoadOptions

KS = (1, 5, 10)
EXACT = "exact"
HOSTS = ("bigrec", "catalogue", *ASSISTED)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Settings of :func:`latentrec.evaluation.evaluate`."""

    split: str = option("test", help="the split that is judged", choices=SPLITS)
    challenger: str | None = option(
        None, help="name of the model that may become champion (default: the last --model)"
    )
    baseline: str | None = option(
        None,
        help="name of the model that comparison.json tests the others against (default: the backbone "
        "without reasoning, else popularity)",
    )
    metric: str = option(
        "ndcg_at_10",
        help="metric of the promotion gate",
        choices=("ndcg_at_10", "ndcg_at_5", "hr_at_10", "hr_at_5", "mrr_at_10"),
    )
    promotion_margin: float = option(
        0.0, help="the challenger must beat the champion by more than this, in units of the metric"
    )
    beam_width: str = option(
        "10", help="beams of the title models; 'exact' scores every title (small catalogues only)"
    )
    host: str = option(
        "catalogue",
        help="decoding of the title models: catalogue, a title's probability among the catalogue's; bigrec, "
        "its mean log-probability a token, as published; d3, mixed with an assistant's; d3-catalogue, both",
        choices=HOSTS,
    )
    assistant: str | None = option(
        None, help="d3 hosts: name of the --model whose item scores assist the decoding (default: sasrec)"
    )
    alpha: float = option(0.9, help="d3 hosts: weight of the language model against the assistant, 0 to 1")
    exclude_history: bool = option(
        False, help="leave out each user's own items (the papers do not: buyers do come back)"
    )
    max_users: int | None = option(
        None, help="judge a seeded subset of this many users, the same for all models (default: all)"
    )
    batch_size: int = option(64, help="users decoded together")
    cost_samples: int = option(24, help="users whose latency is measured one by one; 0 skips the cost table")
    chain_of_thought_tokens: int = option(
        0, help="also time a written chain of thought of this many tokens before the title (0: do not)"
    )
    n_resamples: int = option(2000, help="bootstrap resamples and permutations")
    example_users: int = option(10, help="users shown in the report with history, lists and truth")
    seed: int = option(42, help="of resampling, subsets and examples")

    def __post_init__(self) -> None:
        """Check the values that no type can.

        Raises:
            UserError: a value is out of its range.
        """
        if self.beam_width != EXACT and not (self.beam_width.isdigit() and int(self.beam_width) > 0):
            raise UserError(f"EvaluateConfig.beam_width is {self.beam_width!r}, expected 1, 2, … or 'exact'")
        if not 0.0 <= self.alpha <= 1.0:
            raise UserError(f"EvaluateConfig.alpha is {self.alpha}, expected 0 to 1")
        for name, least in (
            ("batch_size", 1),
            ("n_resamples", 100),
            ("cost_samples", 0),
            ("chain_of_thought_tokens", 0),
            ("example_users", 0),
        ):
            if getattr(self, name) < least:
                raise UserError(f"EvaluateConfig.{name} is {getattr(self, name)}, expected at least {least}")
        if self.max_users is not None and self.max_users < 1:
            raise UserError(f"EvaluateConfig.max_users is {self.max_users}, expected at least 1")
        if self.promotion_margin < 0:
            raise UserError(f"EvaluateConfig.promotion_margin is {self.promotion_margin}, expected 0 or more")


@dataclass(frozen=True)
class Champion:
    """The model that holds the crown now, pulled from the registry by the caller.

    Attributes:
        directory: its model directory.
        label: how it is called in tables and in the gate's reason, e.g. ``latentr3 v3``.
        version: its registered version: what the alias is expected to point at when it is moved.
        served: how its users get it decoded, and so how it is judged; ``None``: as the run says.
    """

    directory: Path
    label: str = "champion"
    version: str | None = None
    served: LoadOptions | None = None
