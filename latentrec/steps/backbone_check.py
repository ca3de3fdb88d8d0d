"""Whether the backbone can be had, and whether it fits into the memory that the run asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentrec.core import UserError
from latentrec.core.documents import parse_document
from latentrec.core.redact import redact
from latentrec.core.settings import HUB_VARIABLE
from latentrec.models.gguf import is_gguf
from latentrec.models.named import NAMED
from latentrec.models.presets import PRESETS
from latentrec.steps.node_pools import GPU_MEMORY_GB, device_count
from latentrec.storage import is_local, join, local_path, store_for

MOST_CHARACTERS = 1000
HUB_TIMEOUT_S = 10

LORA_SETTINGS: dict[str, dict[str, Any]] = {
    "latentr3": {"sft.train_backbone": "lora"},
    "reczero": {"rating_grpo.lora_rank": 16},
    "recone": {"cold_start_sft.lora_rank": 16, "rating_grpo.lora_rank": 16},
}
"""The settings that make each system train adapters."""

BACKBONE_STEPS = ("sft", "pretrain_rating")
"""Steps whose configuration names the backbone."""

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")


def check_backbone(
    system: str, parameters: Mapping[str, Any], configs: Mapping[str, Mapping[str, Any]]
) -> str:
    """Look the backbone's ``config.json`` up and estimate the memory of its training.

    Args:
        system: name of the pipeline.
        parameters: the pipeline's parameters.
        configs: what is set of each step's configuration.

    Returns:
        One line for the run summary.

    Raises:
        UserError: it cannot be reached, is no causal language model, or does not fit.
    """
    named = ((step, configs.get(step, {}).get("backbone")) for step in BACKBONE_STEPS)
    step, found = next(((step, name) for step, name in named if name), ("", "tiny"))
    try:
        return _check(system, parameters, configs, str(found))
    except UserError as error:
        # The parameter's name: KFP's form shows the field under it.
        raise UserError(f"{step}_backbone: {error}" if step else str(error), code=error.code) from None


def _check(
    system: str, parameters: Mapping[str, Any], configs: Mapping[str, Mapping[str, Any]], backbone: str
) -> str:
    if not backbone.isprintable() or len(backbone) > MOST_CHARACTERS:
        raise UserError(
            f"backbone is {backbone[:60]!a}, expected a name or location of printable characters, "
            f"at most {MOST_CHARACTERS:,}",
            code="config.bad_value",
        )
    if backbone in PRESETS:
        return f"{backbone}: preset, made from the catalogue"
    if is_gguf(backbone):
        return _gguf_note(backbone)
    count = NAMED[backbone].parameters if backbone in NAMED else parameter_count(read_model_config(backbone))
    need = training_gb(count, lora=trains_adapters(system, configs))
    note = f"{backbone}: {count / 1e6:,.0f} M parameters, about {need:.1f} GB to train"
    kind, devices = parameters.get("gpu_type"), device_count(parameters)
    if kind in GPU_MEMORY_GB and devices and need > GPU_MEMORY_GB[kind]:
        lora = " ".join(f"{name}={value}" for name, value in LORA_SETTINGS.get(system, {}).items())
        raise UserError(
            f"backbone {note}; gpu_type {kind} has {GPU_MEMORY_GB[kind]} GB: take a larger gpu_type, a "
            f"smaller backbone, or LoRA ({lora})",
            code="backbone.too_large",
        )
    return note


def _gguf_note(backbone: str) -> str:
    """A GGUF file is read whole where it is trained; here it only has to be there."""
    found = store_for(backbone).stat(backbone)
    if found is None or not found.size:
        raise UserError(f"backbone '{backbone}': no such file", code="backbone.not_found")
    return f"{backbone}: GGUF file of {found.size / 1e6:,.0f} MB"


def trains_adapters(system: str, configs: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether every step that trains the backbone trains LoRA adapters instead of its weights."""
    asked = (key.partition(".") for key in LORA_SETTINGS.get(system, {}))
    given = [configs.get(step, {}).get(name) for step, _, name in asked]
    return bool(given) and all(value == "lora" if isinstance(value, str) else value for value in given)


_LARGEST_SIZE = 1 << 24
"""Far above any hidden size, vocabulary or number of layers there is."""


def read_model_config(backbone: str) -> dict[str, Any]:
    """``config.json`` of a directory, a ``gs://`` location or a hub id.

    Raises:
        UserError: there is none, or it is not a causal language model's.
    """
    if not is_local(backbone) or local_path(backbone).is_dir() or not _HUB_ID.match(backbone):
        uri = join(backbone, "config.json")
        try:
            text: bytes | str = store_for(uri).read_bytes(uri)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise UserError(
                f"backbone '{backbone}' is neither a preset ({', '.join(PRESETS)}), {' or '.join(NAMED)}, a "
                "directory with config.json, a .gguf file, a gs:// location of one, nor a hub id like "
                "Qwen/Qwen2.5-1.5B",
                code="backbone.unknown_name",
            ) from None
    else:
        text = _hub_config(backbone)
    try:
        config = parse_document(text)
    except ValueError as error:
        raise UserError(
            f"backbone '{backbone}': config.json is not JSON ({error})", code="backbone.cannot_load"
        ) from None
    if not isinstance(config, dict) or not config.get("hidden_size") or not config.get("vocab_size"):
        raise UserError(
            f"backbone '{backbone}': config.json has no hidden_size and vocab_size; not a language model",
            code="backbone.not_language_model",
        )
    return config


def parameter_count(config: Mapping[str, Any]) -> int:
    """Parameters of a decoder-only transformer, from the sizes in its ``config.json`` (gated MLP, GQA).

    Raises:
        UserError: a size is no whole number that a model can have.
    """

    def size(name: str, otherwise: int) -> int:
        found = config.get(name)
        if found is None:
            return otherwise
        if isinstance(found, bool) or not isinstance(found, int) or not 1 <= found <= _LARGEST_SIZE:
            raise UserError(
                f"the backbone's config.json: {name} is {ascii(found)[:60]}, expected a whole number from 1 "
                f"to {_LARGEST_SIZE:,}",
                code="backbone.not_language_model",
            )
        return found

    d, layers, vocab = size("hidden_size", 1), size("num_hidden_layers", 1), size("vocab_size", 1)
    inner, heads = size("intermediate_size", 4 * d), size("num_attention_heads", 1)
    head_dim = size("head_dim", max(1, d // heads))
    key_value = size("num_key_value_heads", heads) * head_dim
    attention = 2 * d * heads * head_dim + 2 * d * key_value
    embeddings = vocab * d * (1 if config.get("tie_word_embeddings", False) else 2)
    return embeddings + layers * (attention + 3 * d * inner + 2 * d) + d


def training_gb(parameters: int, *, lora: bool = False) -> float:
    """Memory to train, GB.

    bf16 weights and gradients, fp32 master copy and two AdamW moments, 30 % on top for activations.
    With LoRA the frozen weights stand in bf16 and only a few per cent are trained.
    """
    per_parameter = 2.6 if lora else 16.0
    return parameters * per_parameter * 1.3 / 1e9


def _hub_config(backbone: str) -> str:
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    kept = try_to_load_from_cache(backbone, "config.json")
    try:
        if not isinstance(kept, str):
            _reach_hub()
        return Path(hf_hub_download(backbone, "config.json", etag_timeout=15)).read_text(encoding="utf-8")
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"backbone '{backbone}' cannot be read from the hub ({type(error).__name__}); is the name "
            "right, the token of a gated model set (HF_TOKEN), the network there? A mirror is named by "
            f"{HUB_VARIABLE} (now {redact(constants.ENDPOINT)}), in the ConfigMap latentrec-settings "
            "or the environment; a directory or a gs:// location works offline",
            code="backbone.hub_unreachable",
        ) from None


def _reach_hub() -> None:
    """Ask the hub for anything, once: its own client goes on trying for half a minute where no network is.

    Raises:
        LocalEntryNotFoundError: no answer; not asked where there is a local copy of the file.
    """
    import requests
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        with requests.Session() as session:
            session.head(constants.ENDPOINT, timeout=HUB_TIMEOUT_S)
    except requests.exceptions.SSLError:
        return  # its own client may know the authority
    except requests.RequestException as error:
        raise LocalEntryNotFoundError(type(error).__name__) from None
