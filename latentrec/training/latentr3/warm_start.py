"""Begin stage 1 at a trained model instead of a fresh one: go on, warm-start from the champion, ablate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from latentrec.catalog import ITEMS_FILE, Catalogue
from latentrec.core import UserError
from latentrec.data import Dataset
from latentrec.models.latentr3 import LatentR3Model, LoadedLatentR3, load_latentr3
from latentrec.prompts import NextItemPrompt
from latentrec.training.latentr3.sft_config import SFTConfig


def start_from(
    config: SFTConfig, data: Dataset, directory: str | Path
) -> tuple[LatentR3Model, NextItemPrompt, list[str], str]:
    """The model of a directory, shaped as configured.

    Backbone, tokenizer and the prompt's texts are the directory's. LatentRATT is too, where both have one
    (its weights serve any N ≥ 1); otherwise it is new. The prompt's limits are the configuration's. The
    optimizer and the learning rate's schedule begin anew.

    Args:
        config: what is to be trained; its ``backbone`` is left unset or is that of the directory.
        data: the dataset; its catalogue may be newer than the model's but must share titles with it.
        directory: a LatentR³ model directory of any stage.

    Returns:
        Model, prompt, notes for ``model.json``, and the directory's fingerprint (the new model's parent).

    Raises:
        UserError: no such model, another backbone is asked for, a LatentRATT would be dropped, or the
            model's catalogue shares no title with the dataset's.
    """
    loaded = load_latentr3(directory)
    _check_backbone(config, loaded, directory)
    if loaded.model.latent_ratt is not None and config.reasoning_tokens == 0:
        raise UserError(
            f"{directory} has a LatentRATT, which reasoning_tokens 0 would drop; begin at a model without "
            "one, or use --reasoning-tokens 1",
            code="model.other_shape",
        )
    settings: dict[str, Any] = loaded.prompt.settings() | {
        "max_history": config.max_history,
        "max_prompt_tokens": config.max_prompt_tokens,
        "max_title_tokens": config.max_title_tokens,
    }
    prompt = NextItemPrompt(loaded.prompt.tokenizer, **settings)
    torch.manual_seed(config.seed)
    model = LatentR3Model(
        loaded.model.backbone.model,
        n_latents=config.reasoning_tokens,
        latent_source=config.latent,
        latent_width=config.ablation.latent_width,
        answer_reads=config.ablation.answer_reads,
    )
    for own, given in (
        (model.latent_ratt, loaded.model.latent_ratt),
        (model.pause_tokens, loaded.model.pause_tokens),
    ):
        if own is not None and given is not None and _same_shapes(own, given):
            own.load_state_dict(given.state_dict())
    notes = [note for note in loaded.info.notes if "stopped early" not in note]
    return model, prompt, [*notes, _compare_catalogues(data, directory)], loaded.fingerprint


def _same_shapes(own: nn.Module, given: nn.Module) -> bool:
    """Whether weights fit: not where the width of LatentRATT, or the number of pause tokens, differs."""
    shapes = [{name: value.shape for name, value in part.state_dict().items()} for part in (own, given)]
    return shapes[0] == shapes[1]


def _check_backbone(config: SFTConfig, loaded: LoadedLatentR3, directory: str | Path) -> None:
    default = SFTConfig.model_fields["backbone"].default
    trained = loaded.info.config.get("backbone")
    if trained is not None and config.backbone not in (default, trained):
        raise UserError(
            f"sft.backbone is {config.backbone!r}, but training starts from {directory}, whose "
            f"backbone is {trained!r}; leave --backbone out, or leave --init-from out",
            code="config.conflict",
        )


def _compare_catalogues(data: Dataset, directory: str | Path) -> str:
    known = set(Catalogue.read(Path(directory) / ITEMS_FILE).unique_titles)
    titles = set(data.titles)
    shared = len(known & titles)
    if not shared:
        raise UserError(
            f"none of the dataset's {len(titles):,} titles is in the catalogue of {directory}; it was "
            "trained on another shop: leave --init-from out",
            code="model.other_dataset",
        )
    return (
        f"started from model {Path(directory).name}; {len(titles) - shared:,} of {len(titles):,} titles were "
        "not in its catalogue"
    )
