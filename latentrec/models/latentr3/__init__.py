"""LatentR³: any causal language model with N latent reasoning tokens made by LatentRATT."""

from typing import TYPE_CHECKING

from latentrec.core.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from latentrec.models.latentr3.allowed_tokens import AllowedTokens
    from latentrec.models.latentr3.answer_likelihood import IGNORED, AllowedTokensOf, read_before
    from latentrec.models.latentr3.backbone_source import load_backbone, load_pretrained
    from latentrec.models.latentr3.directory import LoadedLatentR3, architecture, load_latentr3, save_latentr3
    from latentrec.models.latentr3.kv_cache import KeyValues
    from latentrec.models.latentr3.latent_ratt import LatentRATT
    from latentrec.models.latentr3.model import LatentR3Model
    from latentrec.models.latentr3.prompt_state import (
        AnswerIndices,
        Branches,
        DecodingState,
        LatentRollout,
        PromptState,
    )
    from latentrec.models.latentr3.tree_mask import PADDING, TRUNK

__all__ = [
    "IGNORED",
    "PADDING",
    "TRUNK",
    "AllowedTokens",
    "AllowedTokensOf",
    "AnswerIndices",
    "Branches",
    "DecodingState",
    "KeyValues",
    "LatentR3Model",
    "LatentRATT",
    "LatentRollout",
    "LoadedLatentR3",
    "PromptState",
    "architecture",
    "load_backbone",
    "load_latentr3",
    "load_pretrained",
    "read_before",
    "save_latentr3",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "allowed_tokens": ("AllowedTokens",),
        "answer_likelihood": ("IGNORED", "AllowedTokensOf", "read_before"),
        "backbone_source": (
            "load_backbone",
            "load_pretrained",
        ),
        "directory": (
            "LoadedLatentR3",
            "architecture",
            "load_latentr3",
            "save_latentr3",
        ),
        "kv_cache": ("KeyValues",),
        "latent_ratt": ("LatentRATT",),
        "model": ("LatentR3Model",),
        "prompt_state": (
            "AnswerIndices",
            "Branches",
            "DecodingState",
            "LatentRollout",
            "PromptState",
        ),
        "tree_mask": ("PADDING", "TRUNK"),
    },
)
