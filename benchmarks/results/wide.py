"""A backbone with LatentRATT's parameters in its feed-forward layers: the control of equal parameters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from latentrec.data import Dataset
from latentrec.models.presets import PRESETS, Preset, build_backbone
from latentrec.training.sft import tokenizer_texts


def widened(preset: Preset) -> Preset:
    """The preset with the ``3 (d² + d)`` parameters of a LatentRATT spread over its feed-forward layers."""
    size = preset.hidden_size
    extra = round(3 * (size**2 + size) / (3 * size * preset.layers))
    return replace(preset, intermediate_size=preset.intermediate_size + extra)


def write_wide_backbone(dataset: Path, preset: str, seed: int, directory: Path) -> Path:
    """Make the untrained backbone, tokenizer as the preset would have it, unless it is there."""
    if not (directory / "config.json").is_file():
        model, tokenizer = build_backbone(
            widened(PRESETS[preset]), tokenizer_texts(Dataset(dataset)), seed=seed
        )
        tokenizer.save_pretrained(directory)
        model.save_pretrained(directory, safe_serialization=True)
    return directory
