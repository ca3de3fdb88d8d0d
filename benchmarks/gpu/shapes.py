"""Models of real sizes with random weights (speed does not depend on what weights say), and their FLOPs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from latentrec.models.latentr3 import LatentR3Model


@dataclass(frozen=True)
class Shape:
    """A decoder's sizes, in transformers' words."""

    kind: str
    hidden_size: int
    layers: int
    heads: int
    key_value_heads: int
    intermediate_size: int
    vocabulary: int

    @property
    def layer_parameters(self) -> int:
        """Weights of all layers' matrices."""
        d, inner = self.hidden_size, self.intermediate_size
        key_value = d // self.heads * self.key_value_heads
        return self.layers * (2 * d * d + 2 * d * key_value + 3 * d * inner)

    def train_flops(self, tokens: int, attended: int, target_tokens: int) -> float:
        """Floating-point operations of forward and backward.

        Args:
            tokens: positions that are computed.
            attended: over all of them, how many positions each attends to, summed.
            target_tokens: positions whose logits are computed.
        """
        attention = 12 * self.layers * self.hidden_size * attended
        head = 6 * self.hidden_size * self.vocabulary * target_tokens
        return 6.0 * self.layer_parameters * tokens + attention + head


SHAPES = {
    "SmolLM2-135M": Shape("llama", 576, 30, 9, 3, 1536, 49_152),
    "Qwen2-0.5B": Shape("qwen2", 896, 24, 14, 2, 4864, 151_936),
    "Qwen2-1.5B": Shape("qwen2", 1536, 28, 12, 2, 8960, 151_936),
}
TOY = Shape("llama", 64, 2, 4, 2, 128, 1000)


def causal_lm(shape: Shape, device: str, seed: int = 0) -> Any:
    """A causal language model of the shape, fp32."""
    import transformers

    family = {"llama": "Llama", "qwen2": "Qwen2"}[shape.kind]
    config = getattr(transformers, f"{family}Config")(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
    )
    torch.manual_seed(seed)
    with torch.device(device):
        return getattr(transformers, f"{family}ForCausalLM")(config)


def latentr3(shape: Shape, device: str, *, n_latents: int = 1, seed: int = 0) -> LatentR3Model:
    """LatentR³ on :func:`causal_lm`."""
    model = LatentR3Model(causal_lm(shape, device, seed), n_latents=n_latents)
    return model.to(device)
