"""Arguments of ``transformers.Trainer`` and of trl's trainers on top of it, and adapters."""

from __future__ import annotations

import logging
from typing import Any

import torch
from transformers import TrainingArguments

from latentrec.core.process import return_freed_memory

_log = logging.getLogger(__name__)


def training_arguments(config: Any, directory: str, *, epochs: float, **more: Any) -> TrainingArguments:
    """The engine's own settings: we evaluate, save and report, so all of that is off."""
    return TrainingArguments(**engine_options(config, directory, epochs=epochs), **more)


def common_options(directory: str, seed: int) -> dict[str, Any]:
    """Arguments of every trainer; our mixin logs and saves."""
    return_freed_memory()
    cuda = torch.cuda.is_available()
    return {
        "output_dir": directory,
        "seed": seed,
        "report_to": [],
        "disable_tqdm": True,
        "save_strategy": "no",
        "use_cpu": not cuda,
        "dataloader_pin_memory": cuda,
    }


def engine_options(config: Any, directory: str, *, epochs: float) -> dict[str, Any]:
    """Arguments of both stages of LatentR³."""
    cuda = torch.cuda.is_available()
    return common_options(directory, config.seed) | {
        "num_train_epochs": epochs,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": config.lr_scheduler_type,
        "warmup_steps": config.warmup_steps,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "optim": "adamw_torch_fused" if cuda else "adamw_torch",
        "tf32": True if cuda and config.bf16 else None,
        "bf16": config.bf16 and bf16_is_native(),
        "logging_strategy": "steps",
        "logging_steps": config.logging_steps,
        "logging_nan_inf_filter": False,
        "eval_strategy": "no",
        "remove_unused_columns": False,
        "ddp_find_unused_parameters": False,
        "accelerator_config": {"even_batches": False},
    }


def lora(rank: int, alpha: int) -> Any:
    """peft's settings of adapters on every linear layer; ``None`` for rank 0, which trains all weights."""
    if not rank:
        return None
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")


def bf16_is_native() -> bool:
    """Whether this machine multiplies in bf16; where not, training runs in fp32 and the log says so.

    A CPU without bf16 instructions would emulate them, at a fraction of the speed of fp32.
    """
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        native = any(value for name, value in capabilities.items() if "bf16" in name)
        native |= torch.cpu._is_avx512_bf16_supported()
    if not native:
        device = "GPU" if torch.cuda.is_available() else "CPU"
        _log.warning("precision bf16: this %s has no bf16 instructions; training runs in fp32", device)
    return bool(native)
