"""The configuration of ``rpt``."""

from __future__ import annotations

from dataclasses import dataclass

from latentrec.core import UserError, option
from latentrec.training.rpt_loss import ESTIMATORS, REWARDS


@dataclass(frozen=True, kw_only=True)
class RPTConfig:
    """Settings of reinforcement post-training; defaults are the published ones but for the estimator."""

    objective: str = option(
        "rpt",
        help="rpt; or spt: the control that goes on with pre-training from the same model for as long",
        choices=("rpt", "spt"),
    )
    estimator: str = option("smoothed", help="how the reward's gradient is had", choices=ESTIMATORS)
    reward: str = option("recall", help="reward of the final step's ranking", choices=REWARDS)
    k: int = option(10, help="length of the list that the reward looks at")
    group_size: int = option(4, help="stochastic forwards of each sample (G)")
    beta: float = option(1.0, help="weight of the drift from the frozen SPT model (0: no reference)")
    noise_std: float = option(0.1, help="gaussian: std of the state's noise, in units of the state's rms")
    noise_draws: int = option(8, help="gaussian: draws of the noise around each state")
    smoothing: float = option(1.0, help="smoothed: scale of the logistic noise on the target's score")
    filter_passes: int = option(3, help="hard-sample filter: passes (0: train on every sample)")
    filter_top: int = option(100, help="hard-sample filter: keep targets that reach so high in any pass")
    hidden_dropout: float = option(0.1, help="dropout of hidden states")
    attention_dropout: float = option(0.1, help="dropout of attention")
    learning_rate: float = option(5e-4, help="of Adam")
    weight_decay: float = option(0.0, help="of Adam")
    gradient_clip: float = option(0.0, help="largest norm of the gradient (0: no limit)")
    batch_size: int = option(400, help="targets a step")
    epochs: int = option(30, help="upper bound of epochs")
    patience: int = option(10, help="epochs without a better validation NDCG@10 before it stops")
    cpu_threads: int = option(1, help="threads of torch on a CPU (0: torch's own choice)")
    seed: int = option(42, help="of batches, initial states and dropout")

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            UserError: a field is out of range.
        """
        least = {"k": 1, "group_size": 1, "batch_size": 1, "epochs": 1, "patience": 1, "filter_top": 1}
        least |= {"beta": 0, "filter_passes": 0, "weight_decay": 0, "gradient_clip": 0, "cpu_threads": 0}
        least |= {"noise_draws": 2}
        if self.estimator == "target_likelihood":
            least["group_size"] = 2  # the advantage of a group of one is always 0
        for name, low in least.items():
            if getattr(self, name) < low:
                raise UserError(f"{name} is {getattr(self, name)}, expected at least {low}")
        for name in ("noise_std", "smoothing", "learning_rate"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name} is {getattr(self, name)}, expected above 0")
        for name in ("hidden_dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, expected at least 0 and below 1")
