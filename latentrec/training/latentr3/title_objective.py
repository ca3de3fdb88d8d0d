"""Stage 2 with titles as actions: GRPO's gradient in expectation over every title of the catalogue.

The policy is ``π(y | x)``, the probability of a title among the catalogue's, read through the latents; the
reward is 1 for the title that was bought next. Nothing is sampled: a draw of K titles nearly always holds no
right one and then says nothing, while the expectation over all draws has a closed form
(:mod:`latentrec.training.latentr3.grpo_loss`). A step costs what a step of stage 1 costs, prefixes packed.

Against stage 1's ``∇log p`` each sample counts by √(p / (1 − p)): those that the model can come to rank high
lead, and those that nothing in the history foretells no longer do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from latentrec.training.latentr3.collator import answer_log_probs
from latentrec.training.latentr3.grpo_loss import title_weights
from latentrec.training.latentr3.sft import SFTTrainer


class TitleObjectiveTrainer(SFTTrainer):
    """Stage 1's engine over packed rows with the policy gradient in its loss's place.

    Args:
        advantage: ``group`` or ``none``, as :func:`title_weights` has it.
    """

    def __init__(self, *, advantage: str, **options: Any):
        """Nothing is counted yet."""
        self._advantage = advantage
        self._probabilities: list[Tensor] = []
        super().__init__(**options)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor:
        titles = [_has_title(batch["labels"]).sum() for batch in batch_samples]
        total = torch.stack(titles).sum().to(device)
        return self.accelerator.reduce(total, reduction="sum").clamp(min=1)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """This micro-batch's share of the optimiser batch's surrogate, whose gradient is the policy's."""
        log_probs_BML = model(lambda latentr3: answer_log_probs(latentr3, inputs))
        self._throughput.tokens += inputs["input_ids"].numel() + log_probs_BML.numel()
        log_p = log_probs_BML.sum(dim=-1)[_has_title(inputs["labels"])]
        with torch.no_grad():
            weights = title_weights(log_p, self._advantage)
            self._probabilities.append(torch.exp(log_p))
        # DDP averages gradients over processes; each process contributes its part of one mean.
        return -(weights * log_p).sum() / num_items_in_batch * self.accelerator.num_processes

    def figures(self) -> dict[str, float]:
        """Throughput, and since the last call ``reward``, the true titles' mean probability, with
        ``reward_std`` over samples."""
        seen = torch.cat(self._probabilities) if self._probabilities else torch.zeros(0)
        self._probabilities = []
        rewards = {"reward": float(seen.mean()), "reward_std": float(seen.std())} if len(seen) > 1 else {}
        return self._throughput.figures() | rewards


def _has_title(labels_BML: Tensor) -> Tensor:
    """bool (B, M): branches that are samples, and not there to fill the batch."""
    return (labels_BML >= 0).any(dim=-1)
