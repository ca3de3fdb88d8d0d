"""Small backbones made from scratch: a Qwen2 configuration and a byte-level BPE tokenizer of the catalogue.

Placeholders for a pretrained model, so that everything runs with no download. They know no language beyond
the titles; ``model.json`` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from latentrec.core import UserError

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"


@dataclass(frozen=True)
class Preset:
    """Shape of a small backbone; ``vocabulary`` is the most tokens that its tokenizer may have."""

    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    vocabulary: int


PRESETS = {
    "micro": Preset(hidden_size=32, layers=2, heads=2, intermediate_size=96, vocabulary=512),
    "tiny": Preset(hidden_size=64, layers=2, heads=2, intermediate_size=192, vocabulary=2048),
    "small": Preset(hidden_size=128, layers=2, heads=4, intermediate_size=384, vocabulary=4096),
    "medium": Preset(hidden_size=256, layers=4, heads=4, intermediate_size=768, vocabulary=8192),
    "large": Preset(hidden_size=768, layers=12, heads=12, intermediate_size=2048, vocabulary=16384),
}
"""``micro`` is for tests, ``tiny`` for the sample, ``small`` and ``medium`` for results on a CPU, ``large``
(about 100 M parameters) for a GPU."""


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> Any:
    """Train a byte-level BPE tokenizer; any text encodes and decodes back to itself. Deterministic."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        pad_token=PAD,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


def build_preset(name: str, texts: Sequence[str], *, seed: int) -> tuple[Any, Any]:
    """A randomly initialized backbone and its tokenizer.

    Args:
        name: a key of :data:`PRESETS`.
        texts: what the tokenizer learns from: title lines and the prompt's own text.
        seed: of the weights.

    Returns:
        The ``Qwen2ForCausalLM`` and the tokenizer.

    Raises:
        UserError: there is no such preset.
    """
    if name not in PRESETS:
        raise UserError(f"no preset '{name}'; there are {', '.join(PRESETS)}", code="backbone.unknown_name")
    return build_backbone(PRESETS[name], texts, seed=seed)


def build_backbone(preset: Preset, texts: Sequence[str], *, seed: int) -> tuple[Any, Any]:
    """A randomly initialized backbone of any shape and its tokenizer; see :func:`build_preset`."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = train_tokenizer(texts, preset.vocabulary)
    config: Any = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=preset.hidden_size,
        num_hidden_layers=preset.layers,
        num_attention_heads=preset.heads,
        num_key_value_heads=preset.heads,
        intermediate_size=preset.intermediate_size,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    config._attn_implementation = "sdpa"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config)
    return model, tokenizer
