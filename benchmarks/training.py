"""Stage 1 and stage 2 steps against the authors' formulation, and an epoch with all prefixes in one row.

The trainers' own functions are timed: what a step of ``train_sft`` and ``train_grpo`` computes, forward and
backward, on random tokens (speed does not depend on what they say). Memory is the peak resident size of a
fresh process that takes two steps, less its size before the first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import training_authors as authors
from benchmarks.harness import in_turns, medians, record
from benchmarks.training_packed import packed_epochs
from latentrec.models.latentr3 import LatentR3Model
from latentrec.training.latentr3 import grpo_loss as objective
from latentrec.training.latentr3.collator import answer_log_probs

D, LAYERS, VOCABULARY = 128, 4, 4096
PROMPTS, COPIES, PROMPT_TOKENS, ANSWER_TOKENS = 4, 8, 160, 10
REPEATS = 7
LARGER = ((128, 4096, 32), (128, 151_936, 4), (512, 4096, 4))
"""(d, vocabulary, prompts) beside the contract's: the trainer's usual batch, Qwen2's own vocabulary, and a
wider model. With 4 prompts the 44 positions after them cost more than their share: a pass forms and adds
every weight's gradient once, however few its positions."""
SIZES = {
    "d": D,
    "layers": LAYERS,
    "vocabulary": VOCABULARY,
    "prompts": PROMPTS,
    "prompt_tokens": PROMPT_TOKENS,
    "answer_tokens": ANSWER_TOKENS,
    "bf16": False,
}


def run() -> None:
    """Measure and record the training benchmarks."""
    torch.set_num_threads(int(os.environ.get("BENCH_THREADS", "2")))
    sft_step()
    grpo_step()
    grpo_memory()
    packed_epochs(make_model())


def make_model(seed: int = 0, *, d: int = D, vocabulary: int = VOCABULARY) -> LatentR3Model:
    """A Qwen2 of the benchmark's size with LatentRATT."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=d,
        intermediate_size=3 * d,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        tie_word_embeddings=True,
    )
    return LatentR3Model(Qwen2ForCausalLM(config))


def inputs(prompts: int = PROMPTS) -> tuple[Tensor, Tensor, Tensor]:
    """Random prompts (P, T), answers (P, L) and noise (P, K, d) with a clean first copy."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randint(2, VOCABULARY, shape, generator=generator)  # noqa: E731
    noise = torch.randn(prompts, COPIES, D, generator=generator) * 0.1
    noise[:, 0] = 0
    return draw(prompts, PROMPT_TOKENS), draw(prompts, ANSWER_TOKENS), noise


def our_sft_loss(model: LatentR3Model, prompt_PT: Tensor, answer_PL: Tensor) -> Tensor:
    """Stage 1 as the trainer computes it."""
    batch = {
        "input_ids": prompt_PT,
        "attention_mask": torch.ones_like(prompt_PT),
        "labels": answer_PL[:, None],
    }
    return -answer_log_probs(model, batch).sum() / answer_PL.numel()


def our_grpo_loss(model: LatentR3Model, prompt_PT: Tensor, answer_PL: Tensor, noise_PKD: Tensor) -> Tensor:
    """Stage 2's published estimator as the trainer computes it: one prompt pass, one suffix pass."""
    with torch.no_grad():
        state = model.encode_prompt(prompt_PT)
    rollout = model.roll_out(state, copies=COPIES, noise_BMND=noise_PKD[:, :, None])
    log_probs = model.answer_log_probs(state, rollout, answer_PL[:, None])
    counted = torch.ones_like(answer_PL, dtype=torch.bool)
    rewards = objective.likelihood_reward("perplexity", log_probs.detach(), counted)
    advantage = objective.advantages(rewards, "batch")[..., None]
    loss, _ = objective.clipped_surrogate(log_probs - log_probs.detach(), advantage, 0.2, 0.28)
    return loss.mean()


def stepper(model: LatentR3Model, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """Forward and backward."""

    def step() -> None:
        model.zero_grad(set_to_none=True)
        loss().backward()

    return step


def frozen(model: LatentR3Model) -> LatentR3Model:
    """Stage 2's model: only LatentRATT learns."""
    model.backbone.requires_grad_(False)
    return model


def sft_step() -> None:
    """``sft_step_vs_authors``: steps a second, also against target-only logits; with the gradients' gap."""
    rows = [_sft_row(*sizes) for sizes in ((D, VOCABULARY, PROMPTS), *LARGER)]
    record(
        "sft_step_vs_authors",
        rows[0]["ours ms"],
        rows[0]["ratio"] * rows[0]["ours ms"],
        "ms a step",
        REPEATS,
        SIZES,
        reference_is="two encodings of the prompt, logits at every position (benchmarks/training_authors.py)",
        note="target-only: two encodings of the prompt, logits at the answer's positions; a step without any "
        "second encoding would reach 1.94 against it",
        table=rows,
    )


def _sft_row(d: int, vocabulary: int, prompts: int) -> dict[str, float]:
    prompt, answer, _ = inputs(prompts)
    model = make_model(d=d, vocabulary=vocabulary)
    sides = {
        "ours": stepper(model, lambda: our_sft_loss(model, prompt, answer)),
        "reference": stepper(model, lambda: authors.sft_loss(model, prompt, answer)),
        "target_only": stepper(model, lambda: authors.sft_loss(model, prompt, answer, all_positions=False)),
    }
    seconds = in_turns(sides, REPEATS, warm_up=2)
    middle = medians(seconds)
    sides["ours"]()
    ours = flat_gradient(model)
    sides["reference"]()
    gap = float((ours - flat_gradient(model)).norm() / flat_gradient(model).norm())
    best = {side: min(values) for side, values in seconds.items()}
    return {
        "d": d,
        "vocabulary": vocabulary,
        "prompts": prompts,
        "ours ms": middle["ours"] * 1e3,
        "ratio": middle["reference"] / middle["ours"],
        "ratio of the best": best["reference"] / best["ours"],
        "against target-only": middle["target_only"] / middle["ours"],
        "of the best, target-only": best["target_only"] / best["ours"],
        "relative gradient difference": gap,
    }


def grpo_step() -> None:
    """``grpo_step_vs_authors``: a step with rewards, advantages and backward."""
    prompt, answer, noise = inputs()
    model, reference = frozen(make_model()), frozen(make_model())
    sides = {
        "ours": stepper(model, lambda: our_grpo_loss(model, prompt, answer, noise)),
        "reference": stepper(model, lambda: authors.grpo_loss(model, reference, prompt, answer, noise)),
    }
    seconds = in_turns(sides, REPEATS, warm_up=2)
    middle = medians(seconds)
    sides["ours"]()
    ours = flat_gradient(model)
    sides["reference"]()
    gap = float((ours - flat_gradient(model)).norm() / flat_gradient(model).norm())
    record(
        "grpo_step_vs_authors",
        middle["ours"] * 1e3,
        middle["reference"] * 1e3,
        "ms a step",
        REPEATS,
        SIZES | {"copies": COPIES},
        reference_is="4 x K encodings of every prompt (benchmarks/training_authors.py)",
        note=f"best of {REPEATS}: {min(seconds['reference']) / min(seconds['ours']):.2f}; "
        f"relative gradient difference {gap:.1e}",
    )


def grpo_memory() -> None:
    """``grpo_memory_vs_authors``: peak resident growth of a step, each side in processes of its own."""
    repeats = 3
    found: dict[str, list[float]] = {"ours": [], "reference": []}
    for _ in range(repeats):
        for side in found:
            command = [sys.executable, "-m", "benchmarks.training", side]
            root = Path(__file__).resolve().parents[1]
            output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout
            found[side].append(json.loads(output.splitlines()[-1])["grown_mb"])
    middle = medians(found)
    record(
        "grpo_memory_vs_authors",
        middle["ours"],
        middle["reference"],
        "MB above the model",
        repeats,
        SIZES | {"copies": COPIES},
        reference_is="4 x K encodings of every prompt (benchmarks/training_authors.py)",
        note="peak resident size of a fresh process that takes two steps, less its size before them",
    )


def memory_of(side: str) -> None:
    """Take two steps in this process and print by how much its resident size rose at its peak."""
    torch.set_num_threads(int(os.environ.get("BENCH_THREADS", "2")))
    prompt, answer, noise = inputs()
    model, reference = frozen(make_model()), frozen(make_model())
    small = [tensor[:1, :, ...] for tensor in (prompt, answer, noise)]
    our_grpo_loss(model, *small).backward()  # libraries and threads are there before the measurement
    watcher = _Resident()
    before = watcher.now()
    with watcher:
        for _ in range(2):
            if side == "ours":
                our_grpo_loss(model, prompt, answer, noise).backward()
            else:
                authors.grpo_loss(model, reference, prompt, answer, noise).backward()
    peak = max(watcher.peak, _high_water())
    print(json.dumps({"grown_mb": (peak - before) / 2**20}))


def flat_gradient(model: LatentR3Model) -> Tensor:
    """All gradients as one vector."""
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def _high_water() -> int:
    """The process's largest resident size; ``ru_maxrss`` would count the parent's, which survives exec."""
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


class _Resident:
    """Watches this process's resident size."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def now(self) -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def __enter__(self) -> _Resident:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.peak = max(self.peak, self.now())
            time.sleep(0.002)


if __name__ == "__main__":
    memory_of(sys.argv[1])
