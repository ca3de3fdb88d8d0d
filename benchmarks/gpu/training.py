"""Part b: SFT and GRPO steps at real sizes, against the authors' formulation and plain transformers.

Every side takes the same rows: P prompts of T random tokens and answers of L tokens, bf16 autocast over fp32
weights, forward and backward; the SFT sides a fused AdamW step as well. MFU counts the positions and logits
that a side really computes, as a share of the card's datasheet rate.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import training_authors as authors
from benchmarks.gpu.context import Context
from benchmarks.gpu.shapes import SHAPES, TOY, Shape, latentr3
from benchmarks.training import our_grpo_loss
from latentrec.models.latentr3 import LatentR3Model
from latentrec.training.latentr3.collator import answer_log_probs

T, L, K = 160, 10, 8
PROMPTS = {"SmolLM2-135M": 256, "Qwen2-0.5B": 160, "Qwen2-1.5B": 56}
"""Prompts of an SFT step where MFU is measured; the authors' side runs at :data:`AGAINST`."""
AGAINST = 32
GRPO_PROMPTS = {"SmolLM2-135M": 32, "Qwen2-0.5B": 16, "Qwen2-1.5B": 12}
"""As many as the authors' formulation has memory for; 32 is the published batch."""


def run(context: Context) -> None:
    """Measure every shape, smallest first."""
    for name, shape in {"toy": TOY}.items() if context.toy else SHAPES.items():
        if not context.has_time(25):
            context.record("b training", name, skipped="no time")
            continue
        sft(context, name, shape)
        context.clear()
        grpo(context, name, shape)
        context.clear()


def rows(shape: Shape, prompts: int, device: str) -> tuple[Tensor, Tensor]:
    """Random prompts (P, T) and answers (P, L)."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *size: torch.randint(3, shape.vocabulary, size, generator=generator).to(device)  # noqa: E731
    return draw(prompts, T), draw(prompts, L)


def sft(context: Context, name: str, shape: Shape) -> None:
    """Stage 1: tokens/s, MFU and memory, eager and compiled, beside both references."""
    device, small = context.device, 2 if context.toy else AGAINST
    large = 4 if context.toy else PROMPTS[name]
    model = latentr3(shape, device)
    ours = lambda pair: our_loss(model, *pair)  # noqa: E731
    theirs = lambda pair: authors.sft_loss(model, *pair)  # noqa: E731
    few = rows(shape, small, device)
    figures: dict[str, Any] = {"prompts": small}
    for side, loss in (("ours", ours), ("authors", theirs), ("transformers", plain_loss(model))):
        step = trained_step(context, model, partial(loss, few))
        figures[f"{side}_ms"] = context.seconds(step, repeats=3) * 1e3
        figures[f"{side}_gb"] = context.peak_gb(step)
    figures["speed_vs_authors"] = figures["authors_ms"] / figures["ours_ms"]
    figures["speed_vs_transformers"] = figures["transformers_ms"] / figures["ours_ms"]
    figures["memory_vs_authors"] = figures["authors_gb"] / figures["ours_gb"]
    context.record("b SFT step against references", name, **figures)
    throughput(context, f"{name}, eager", shape, model, large)


def run_compiled(context: Context) -> None:
    """The same step with compiled layers, largest shape that matters first."""
    for name in ("toy",) if context.toy else ("Qwen2-0.5B", "Qwen2-1.5B", "SmolLM2-135M"):
        shape = TOY if context.toy else SHAPES[name]
        model = latentr3(shape, context.device)
        model.backbone.compile_layers("aot_eager" if context.toy else "inductor")
        throughput(context, f"{name}, compiled", shape, model, 4 if context.toy else PROMPTS[name])
        del model
        context.clear()


def throughput(context: Context, label: str, shape: Shape, model: LatentR3Model, prompts: int) -> None:
    """Tokens/s and MFU of a step that fills the card."""
    pair = rows(shape, prompts, context.device)
    step = trained_step(context, model, lambda: our_loss(model, *pair))
    seconds = context.seconds(step, repeats=3, warm_up=3)
    positions = prompts * (T + L)
    attended = prompts * (T * (T + 1) // 2 + L * T + L * (L + 1) // 2)
    flops = shape.train_flops(positions, attended, prompts * L)
    context.record(
        "b SFT throughput",
        label,
        prompts=prompts,
        tokens_per_s=positions / seconds,
        step_ms=seconds * 1e3,
        tflops=flops / seconds / 1e12,
        mfu=flops / seconds / context.peak_flops,
        gb_above_weights=context.peak_gb(step),
    )


def our_loss(model: LatentR3Model, prompt: Tensor, answer: Tensor) -> Tensor:
    """Stage 1 as the trainer computes it; the collator knows where the tokens stand, so nothing waits."""
    everything = torch.arange(answer.numel(), device=answer.device)
    batch = {
        "input_ids": prompt,
        "attention_mask": torch.ones_like(prompt),
        "labels": answer[:, None],
        "prompt_index": torch.arange(prompt.numel(), device=prompt.device),
        "answer_index": everything,
        "later_answer_index": everything[: answer.numel() - len(answer)],
    }
    return -answer_log_probs(model, batch).sum() / answer.numel()


def grpo(context: Context, name: str, shape: Shape) -> None:
    """Stage 2's published estimator: LatentRATT learns, the backbone is frozen."""
    device, prompts = context.device, 2 if context.toy else GRPO_PROMPTS[name]
    model = latentr3(shape, device)
    model.backbone.requires_grad_(False)
    prompt, answer = rows(shape, prompts, device)
    noise = (
        torch.randn(prompts, K, shape.hidden_size, generator=torch.Generator().manual_seed(1)).to(device)
        * 0.1
    )
    noise[:, 0] = 0
    sides: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: our_grpo_loss(model, prompt, answer, noise),
        "authors": lambda: authors.grpo_loss(model, model, prompt, answer, noise),
    }
    figures: dict[str, Any] = {"prompts": prompts, "copies": K}
    for side, loss in sides.items():
        step = plain_step(context, model, loss)
        figures[f"{side}_ms"] = context.seconds(step, repeats=3) * 1e3
        figures[f"{side}_gb"] = context.peak_gb(step)
    figures["speed"] = figures["authors_ms"] / figures["ours_ms"]
    figures["memory"] = figures["authors_gb"] / figures["ours_gb"]
    context.record("b GRPO step, K = 8", name, **figures)


def plain_loss(model: LatentR3Model) -> Callable[[tuple[Tensor, Tensor]], Tensor]:
    """transformers' own loss of the backbone over ``[x, y]`` (no latent)."""

    def loss(pair: tuple[Tensor, Tensor]) -> Tensor:
        ids = torch.cat(pair, dim=1)
        labels = ids.clone()
        labels[:, : pair[0].shape[1]] = -100
        return model.backbone.model(input_ids=ids, labels=labels, use_cache=False).loss

    return loss


def autocast(context: Context) -> Any:
    """bf16 on the device; nothing on a CPU, where the dry run has no use for it."""
    return torch.autocast("cuda", torch.bfloat16) if context.device == "cuda" else contextlib.nullcontext()


def plain_step(context: Context, model: LatentR3Model, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """Forward and backward."""

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with autocast(context):
            value = loss()
        value.backward()

    return step


def trained_step(context: Context, model: LatentR3Model, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """Forward, backward and a fused AdamW step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=context.device == "cuda")

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(context):
            value = loss()
        value.backward()
        optimizer.step()

    return step
