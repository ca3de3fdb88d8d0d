"""Which weights of a backbone stage 1 changes: all, the last layers, adapters, or none."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from latentrec.core import UserError
from latentrec.models.latentr3 import LatentR3Model
from latentrec.training.common.trainer_arguments import lora
from latentrec.training.latentr3.sft_config import SFTConfig


def _train_last_layers(backbone: Any, count: int) -> None:
    """Only the last ``count`` decoder layers and the final norm learn.

    Raises:
        UserError: there are not so many.
    """
    decoder = backbone.get_decoder()
    if count > len(decoder.layers):
        raise UserError(
            f"sft.train_layers is {count}, the backbone has {len(decoder.layers)} layers; 0 trains all",
            code="config.bad_value",
        )
    backbone.requires_grad_(False)
    for part in (*decoder.layers[len(decoder.layers) - count :], *_own_parts(decoder)):
        part.requires_grad_(True)


def _own_parts(decoder: Any) -> list[nn.Module]:
    """What stands after the layers: a decoder's children but embeddings, layers and rotary tables."""
    embeddings = decoder.get_input_embeddings()
    return [child for child in decoder.children() if child is not embeddings and child is not decoder.layers]


def choose_trainable(config: SFTConfig, model: LatentR3Model) -> Any:
    """Freeze or adapt the backbone; returns peft's model when adapters must be merged at the end."""
    backbone = model.backbone.model
    if config.train_backbone == "full":
        if config.train_layers:
            _train_last_layers(backbone, config.train_layers)
        return None
    backbone.requires_grad_(False)
    if config.train_backbone == "frozen":
        return None
    from peft import get_peft_model

    torch.manual_seed(config.seed)
    return get_peft_model(backbone, lora(config.lora_rank, config.lora_alpha))
