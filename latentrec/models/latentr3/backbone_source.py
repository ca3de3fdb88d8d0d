"""Where a backbone comes from: a preset, a named model, a directory or GGUF file (local, ``gs://``), the hub.

Weights are read from safetensors or GGUF only and no code of a checkpoint is ever run.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from latentrec.core import UserError
from latentrec.models.gguf import file_digest, is_gguf, load_gguf
from latentrec.models.named import NAMED, cache_directory, named_weights
from latentrec.models.presets import PRESETS, build_preset
from latentrec.storage import is_local, store_for

if not sys.stderr.isatty():
    transformers.utils.logging.disable_progress_bar()

_log = logging.getLogger(__name__)
_CONVERTED = "converted"
"""Stands in a cache folder that is whole."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_backbone(source: str, *, texts: Sequence[str], seed: int) -> tuple[Any, Any]:
    """Load or make a backbone and its tokenizer.

    Args:
        source: a key of ``PRESETS`` or of ``NAMED``, a directory in Hugging Face layout, a ``.gguf`` file,
            ``gs://…`` of either, or a hub id.
        texts: for presets, what the tokenizer learns from.
        seed: for presets, of the weights.

    Returns:
        An ``AutoModelForCausalLM`` in evaluation mode and its tokenizer.

    Raises:
        UserError: no such preset, directory or model; weights that are not safetensors; code in the
            checkpoint; no end-of-sequence token.
    """
    if source in PRESETS:
        return build_preset(source, texts, seed=seed)
    return load_trained(source)


def load_trained(source: str, *, dtype: str = "float32") -> tuple[Any, Any]:
    """Load a backbone that was trained before: all of :func:`load_backbone`'s sources but presets."""
    if source in NAMED:
        return _load_gguf(named_weights(source), source, dtype)
    if is_gguf(source) and is_local(source):
        return _load_gguf(Path(source), source, dtype)
    if not is_local(source):
        with tempfile.TemporaryDirectory(prefix="latentrec-backbone-") as directory:
            if is_gguf(source):
                file = Path(directory) / source.rsplit("/", 1)[-1]
                try:
                    store_for(source).download_file(source, file)
                except FileNotFoundError:
                    raise UserError(
                        f"backbone '{source}': nothing is stored there", code="backbone.not_found"
                    ) from None
                return _load_gguf(file, source, dtype)
            _download(source, Path(directory))
            return load_pretrained(directory, dtype=dtype, named=source)
    return load_pretrained(source, dtype=dtype)


def _load_gguf(path: Path, named: str, dtype: str) -> tuple[Any, Any]:
    """From a GGUF file; what was converted once is kept (reading the tokenizer alone takes half a minute)."""
    if not path.is_file():
        return load_gguf(path, named=named)
    kept = cache_directory() / f"{path.stem}-{file_digest(path)[:16]}"
    if (kept / _CONVERTED).is_file():
        return load_pretrained(kept, dtype=dtype, named=named)
    model, tokenizer = load_gguf(path, dtype=dtype, named=named)
    if dtype == "float32":
        _keep(model, tokenizer, kept)
    return model, tokenizer


def _keep(model: Any, tokenizer: Any, directory: Path) -> None:
    """Save beside and rename; a cache that cannot be written is no error."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".converting-", dir=directory.parent) as beside:
            made = Path(beside) / directory.name
            model.save_pretrained(made, safe_serialization=True)
            tokenizer.save_pretrained(made)
            (made / _CONVERTED).write_text("", encoding="utf-8")
            made.rename(directory)
    except OSError as error:
        _log.info("%s: the converted backbone is not kept (%s)", directory, error)


def load_pretrained(
    source: str | Path, *, dtype: str = "float32", named: str | None = None
) -> tuple[Any, Any]:
    """Load model and tokenizer from a local directory or the hub. Errors as :func:`load_backbone`."""
    from transformers import AutoModelForCausalLM

    name = named or str(source)
    local = Path(source).is_dir()
    if not local and (
        Path(source).is_absolute() or str(source).startswith((".", "~")) or "/" not in str(source)
    ):
        raise UserError(
            f"backbone '{name}' is neither a preset ({', '.join(PRESETS)}), nor {' or '.join(NAMED)}, nor a "
            "directory; give one of these, a .gguf file, gs://… or a hub id such as Qwen/Qwen2.5-1.5B",
            code="backbone.unknown_name",
        )
    if local and not (Path(source) / "config.json").is_file():
        raise UserError(
            f"backbone '{name}' has no config.json; give a directory in Hugging Face layout",
            code="backbone.no_config",
        )
    options = {"trust_remote_code": False, "local_files_only": local}
    try:
        tokenizer = _load_tokenizer(source, options)
        model = AutoModelForCausalLM.from_pretrained(
            source, use_safetensors=True, dtype=DTYPES[dtype], attn_implementation="sdpa", **options
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"backbone '{name}' cannot be loaded: {reason} (weights must be .safetensors, and an "
            "architecture that needs code of its own is refused)",
            code="backbone.cannot_load",
        ) from None
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"backbone '{name}': its tokenizer has no eos_token, so a title could not end; "
            "set eos_token in its tokenizer_config.json",
            code="backbone.no_end_token",
        )
    embeddings: Any = model.get_input_embeddings()
    if len(tokenizer) > embeddings.num_embeddings:
        raise UserError(
            f"backbone '{name}': the tokenizer has {len(tokenizer):,} tokens, the model has embeddings for "
            f"{embeddings.num_embeddings:,}; tokenizer and model do not belong together",
            code="backbone.vocabulary_too_small",
        )
    for parameter in model.parameters():  # out of the mapped file: kernels round by a tensor's alignment
        parameter.data = parameter.data.clone()
    return model.eval(), tokenizer


def _load_tokenizer(source: str | Path, options: dict[str, Any]) -> Any:
    """The tokenizer as it was saved.

    For a tokenizer without a class of its own ``AutoTokenizer`` takes the class that belongs to the *model*,
    which splits text its own way (Qwen2's splits digits): the tokens would not be those of the training.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    path = Path(source) / "tokenizer_config.json"
    if path.is_file():
        kind = json.loads(path.read_text(encoding="utf-8")).get("tokenizer_class")
        if kind in ("TokenizersBackend", "PreTrainedTokenizerFast"):
            return PreTrainedTokenizerFast.from_pretrained(source, **options)
    return AutoTokenizer.from_pretrained(source, **options)


def _download(source: str, directory: Path) -> None:
    store = store_for(source)
    prefix = source.rstrip("/") + "/"
    found = False
    for info in store.list(prefix):
        name = info.uri.removeprefix(prefix)
        if "/" not in name and not name.endswith((".bin", ".pt", ".pth", ".pkl", ".py", ".h5", ".msgpack")):
            store.download_file(info.uri, directory / name)
            found = True
    if not found:
        raise UserError(f"backbone '{source}': nothing is stored there", code="backbone.not_found")
