"""LatentR³ as trl's trainer takes a model, and prompt states as trl takes a batch."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from latentrec.models.latentr3 import Branches, KeyValues, LatentR3Model, PromptState


class Policy(nn.Module):
    """LatentR³ with the few attributes that trl's trainer expects of a transformers model."""

    def __init__(self, latentr3: LatentR3Model):
        """Wrap; weights are shared."""
        super().__init__()
        self.latentr3 = latentr3
        self.config = latentr3.backbone.model.config
        self.generation_config = latentr3.backbone.model.generation_config
        self.warnings_issued: dict[str, bool] = {}

    def add_model_tags(self, tags: Any) -> None:
        """Do nothing: trl would tag its own model card; ours is written at registration."""

    def forward(self, task: Any) -> Any:
        """Run ``task`` on the model."""
        return task(self.latentr3)

    def train(self, mode: bool = True) -> Policy:
        """Only what learns leaves evaluation mode: a frozen backbone has no dropout."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.latentr3.backbone.parameters()):
            self.latentr3.backbone.eval()
        return self


def batch_of_state(state: PromptState, batch: dict[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """A prompt state as tensors whose first dimension is the prompts, as trl splits and shuffles them.

    Where the backbone learns (``keep`` false) the prompts must be read again, with gradient.
    """
    tensors = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    if keep:
        tensors |= {"hidden": state.hidden_BTD, "positions": state.positions_BT.contiguous()}
        for i, (keys, values) in enumerate(state.key_values.layers):
            tensors |= {f"keys_{i}": keys, f"values_{i}": values}
    return tensors


def state_of_batch(model: LatentR3Model, inputs: dict[str, Tensor]) -> PromptState:
    """The inverse of :func:`batch_of_state`."""
    mask = inputs["attention_mask"]
    if "hidden" not in inputs:
        return model.encode_prompt(inputs["input_ids"], mask)
    count = sum(name.startswith("keys_") for name in inputs)
    layers = tuple((inputs[f"keys_{i}"], inputs[f"values_{i}"]) for i in range(count))
    positions = inputs["positions"]
    return PromptState(
        inputs["hidden"],
        KeyValues(layers, positions),
        positions,
        model.restrict(Branches.of_prompts(mask.bool())),
    )


def frozen_copy(model: LatentR3Model, trains_backbone: bool) -> LatentR3Model:
    """The reference model of stage 1: trainable modules are copied, frozen ones shared."""
    if trains_backbone:
        return copy.deepcopy(model).requires_grad_(False).eval()
    reference = copy.copy(model)
    reference._modules = dict(model._modules)
    reference.latent_ratt = copy.deepcopy(model.latent_ratt)
    assert reference.latent_ratt is not None
    reference.latent_ratt.requires_grad_(False)
    return reference
