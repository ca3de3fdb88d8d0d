"""A LatentR³ model as a directory: backbone and tokenizer in Hugging Face layout, LatentRATT beside them.

backbone/                     loads with AutoModelForCausalLM and AutoTokenizer as it stands
latent_ratt.safetensors       absent when N = 0; pause_tokens.safetensors of that control in its place
model.json                    architecture: N, latent source, prompt (written by the trainer)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from latentrec.core import UserError
from latentrec.models.latentr3.backbone_source import DTYPES, load_pretrained
from latentrec.models.latentr3.model import LatentR3Model
from latentrec.models.model_directory import ModelInfo, read_model
from latentrec.prompts import NextItemPrompt
from latentrec.storage import listed_files

BACKBONE = "backbone"
LATENT_RATT = "latent_ratt.safetensors"
PAUSE_TOKENS = "pause_tokens.safetensors"


@dataclass(frozen=True)
class LoadedLatentR3:
    """A loaded model directory: module in evaluation mode, prompt, description (``model.json``)."""

    model: LatentR3Model
    prompt: NextItemPrompt
    info: ModelInfo
    fingerprint: str


def architecture(model: LatentR3Model, prompt: NextItemPrompt) -> dict[str, Any]:
    """The ``architecture`` entry of ``model.json``."""
    entry = {
        "n_latents": model.n_latents,
        "latent_source": model.latent_source,
        "latent_width": None if model.latent_ratt is None else model.latent_ratt.width,
        "answer_reads": model.answer_reads,
        "prompt": prompt.settings(),
        "backbone": model.backbone.config.model_type,
        "hidden_size": model.backbone.hidden_size,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    origin = getattr(model.backbone.model.config, "origin", None)
    return entry if origin is None else entry | {"origin": origin}


def save_latentr3(model: LatentR3Model, tokenizer: Any, directory: Path) -> None:
    """Write weights and tokenizer; ``model.json`` and the manifest are the caller's."""
    target = directory / BACKBONE
    model.backbone.model.save_pretrained(target, safe_serialization=True)
    tokenizer.save_pretrained(target)
    for file, module in ((LATENT_RATT, model.latent_ratt), (PAUSE_TOKENS, model.pause_tokens)):
        if module is not None:
            weights = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
            save_file(weights, directory / file)


def load_latentr3(directory: str | Path, *, dtype: str = "float32") -> LoadedLatentR3:
    """Load a model directory of this system (stage 1, stage 2, or N = 0); only the files that it lists.

    Args:
        directory: of the model.
        dtype: of the weights in memory: ``float32``, as they are saved and trained, or ``bfloat16``.

    Raises:
        UserError: not a finished LatentR³ model directory, or changed since it was written.
    """
    directory = Path(directory)
    info, manifest = read_model(directory)
    if info.system != "latentr3":
        raise UserError(
            f"{directory} holds a '{info.system}' model, expected 'latentr3'", code="model.other_kind"
        )
    shape = info.architecture
    with listed_files(directory, manifest) as listed:
        backbone, tokenizer = load_pretrained(listed / BACKBONE, dtype=dtype, named=str(directory / BACKBONE))
        model = LatentR3Model(
            backbone,
            n_latents=shape["n_latents"],
            latent_source=shape.get("latent_source", "latent_ratt"),
            latent_width=shape.get("latent_width"),
            answer_reads=shape.get("answer_reads", "prompt"),
        )
        for file, module in ((LATENT_RATT, model.latent_ratt), (PAUSE_TOKENS, model.pause_tokens)):
            if module is not None:
                if not (listed / file).is_file():
                    raise UserError(
                        f"{directory / file} is missing; run the step that made {directory} again",
                        code="model.incomplete",
                    )
                module.load_state_dict(load_file(listed / file))
                module.to(DTYPES[dtype])
    return LoadedLatentR3(
        model.eval(), NextItemPrompt(tokenizer, **shape["prompt"]), info, manifest.fingerprint
    )
