"""The small placeholder for an instruct model: a two-layer Qwen2 and its own tokenizer.

It is for machines without an instruct model, and does not replace one. ``latentrec pretrain-rating``
pre-trains it on generated instruction text (:mod:`latentrec.training.rating.pretraining_corpus`) so that it
answers in RecZero's format at a stated rate, with ratings that do not depend on the target: what it rates
well later, it learned later.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from latentrec.core import UserError
from latentrec.prompts.rating_format import TAGS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

PAD, EOS = "<|pad|>", "<|eos|>"
PLACEHOLDER_NOTE = "placeholder for an instruct model, pre-trained from scratch on generated instruction text"


@dataclass(frozen=True)
class PlaceholderShape:
    """Size of the placeholder. The default has about 0.6 million parameters.

    Attributes:
        hidden_size: width d.
        layers: decoder layers.
        heads: attention heads.
        vocabulary: entries of the byte-level BPE tokenizer.
        context: longest sequence, prompt and answer together.
    """

    hidden_size: int = 128
    layers: int = 2
    heads: int = 4
    vocabulary: int = 1500
    context: int = 512

    def __post_init__(self) -> None:
        """Refuse widths that heads do not divide."""
        if self.hidden_size % (2 * self.heads):
            raise UserError(
                f"hidden_size is {self.hidden_size}; it must be a multiple of 2 × heads ({self.heads})",
                code="config.bad_value",
            )
        if self.vocabulary < 300:
            raise UserError(
                f"vocabulary is {self.vocabulary}; bytes and tags alone take 266, use at least 300",
                code="config.bad_value",
            )


def build_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer; each of the format's tags is one token, yet plain text.

    The tags are *added* tokens and not special ones: decoding with ``skip_special_tokens`` must keep them, or
    no answer would ever be valid.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(TAGS),
        special_tokens=[PAD, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, shape: PlaceholderShape, seed: int) -> Qwen2ForCausalLM:
    """A randomly initialized Qwen2 of this shape, tied embeddings, without dropout."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=2 * shape.hidden_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(config)
