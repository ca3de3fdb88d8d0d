"""LatentR³: any causal language model with N latent reasoning tokens made by LatentRATT."""

from latentrec.models.latentr3.backbone import Backbone
from latentrec.models.latentr3.cache import KeyValues
from latentrec.models.latentr3.choices import Choices
from latentrec.models.latentr3.directory import LoadedLatentR3, architecture, load_latentr3, save_latentr3
from latentrec.models.latentr3.latent_ratt import LatentRATT
from latentrec.models.latentr3.loading import load_backbone, load_pretrained
from latentrec.models.latentr3.model import IGNORED, LatentR3Model, read_before
from latentrec.models.latentr3.state import Branches, DecodingState, LatentRollout, PromptState

__all__ = [
    "IGNORED",
    "Backbone",
    "Branches",
    "Choices",
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
