"""Stage 1 on SmolLM2-135M and real histories, on this machine's processor, beside plain transformers.

Every side takes the same 96 training samples of Office Products, after one batch to warm up:
forward, backward and AdamW in bf16 autocast over fp32 weights, batches of 32 samples as the trainer orders
and splits them. Plain transformers reads ``[prompt, answer]`` padded on the right and computes its own loss
(N = 0); our sides think in one latent. Each side runs in a process of its own; its memory is that process's
resident size at its peak, the samples and the libraries in it.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.packing import padded_rows
from benchmarks.harness import record
from latentrec.core import UserError
from latentrec.core.process import return_freed_memory, trim_heap
from latentrec.data import DataPrepConfig, Dataset, prepare
from latentrec.models.latentr3 import IGNORED, LatentR3Model, load_backbone
from latentrec.prompts import NextItemPrompt
from latentrec.training.latentr3.batch_splitting import forward_budget, split_batch
from latentrec.training.latentr3.collator import NextItemTokens, answer_log_probs
from latentrec.training.latentr3.sft_config import SFTConfig
from latentrec.training.latentr3.sft_trainer import RowCollator, row_batches
from latentrec.training.latentr3.trainable import choose_trainable

ROOT = Path(__file__).resolve().parents[1]
BACKBONE, BATCH, SAMPLES, EPOCHS = "smollm2-135m", 32, 96, 1
PLAIN = "transformers, padded rows"
SIDES: dict[str, dict[str, Any]] = {
    PLAIN: {"packing": "none"},
    "single rows": {"packing": "none"},
    "prefixes packed": {"packing": "exact"},
    "packed, no token limit": {"packing": "exact", "max_tokens_per_forward": 0},
    "packed, gradient checkpointing": {"packing": "exact", "gradient_checkpointing": True},
    "packed, output layer of the titles' tokens": {"packing": "exact", "output_tokens": "used"},
    "packed, last 10 of 30 layers": {"packing": "exact", "train_layers": 10},
    "packed, LoRA": {"packing": "exact", "train_backbone": "lora"},
}


def run() -> None:
    """Measure every side and record ``pretrained_sft_single_rows`` and ``pretrained_sft_packed``."""
    with tempfile.TemporaryDirectory() as scratch:
        dataset = office(Path(scratch))
        rows: list[dict[str, Any]] = [{"side": side, **measured(side, dataset)} for side in SIDES]
    by_side = {row["side"]: row for row in rows}
    plain = by_side[PLAIN]
    for row in rows:
        row["ratio"] = row["samples_per_s"] / plain["samples_per_s"]
    sizes = {
        "backbone": BACKBONE,
        "batch": BATCH,
        "samples": SAMPLES,
        "threads": threads(),
        "precision": "bf16 autocast over fp32 weights",
        "mean_prompt_tokens": round(plain["tokens"] / SAMPLES, 1),
    }
    for name, side in (
        ("pretrained_sft_single_rows_vs_transformers", "single rows"),
        ("pretrained_sft_packed_vs_transformers", "prefixes packed"),
    ):
        record(
            name,
            by_side[side]["samples_per_s"],
            plain["samples_per_s"],
            "samples/s",
            EPOCHS,
            sizes,
            lower_is_better=False,
            reference_is="the same samples as [prompt, answer] rows, padded, transformers' own loss",
            note="tokens/s are those of the plain rows, so that they compare; gb: peak resident size",
            **({"table": rows} if side == "prefixes packed" else {}),
        )


def measured(side: str, dataset: Path) -> dict[str, float]:
    """One side in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.pretrained_training", side, str(dataset)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(side, figures, flush=True)
    return figures


def threads() -> int:
    """Threads of every side."""
    return int(os.environ.get("BENCH_THREADS", "2"))


def office(scratch: Path) -> Path:
    """Office Products, prepared as for the results.

    Raises:
        UserError: the reviews are not there.
    """
    folder = Path(os.environ.get("RESULTS_DATA", ROOT / "../shared/data")) / "amazon2018/Office_Products"
    reviews = folder / "Office_Products.json.gz"
    if not reviews.is_file():
        raise UserError(
            f"{reviews}: no such file; give the folder that holds amazon2018/ with RESULTS_DATA=DIR"
        )
    metadata = folder / "meta_Office_Products.json.gz"
    config = DataPrepConfig(reviews=(str(reviews),), metadata=(str(metadata),), k_core=1, split="temporal")
    prepare(config, scratch / "dataset")
    return scratch / "dataset"


def draw_samples(data: Dataset, prompt: NextItemPrompt) -> NextItemTokens:
    """:data:`SAMPLES` training samples: all of users drawn with seed 0, the last user's cut off."""
    train = data.split("train")
    users = np.random.default_rng(0).permutation(np.unique(train.user_ids))
    indices: list[int] = []
    for user in users:
        indices += np.flatnonzero(train.user_ids == user).tolist()
        if len(indices) >= SAMPLES:
            break
    return NextItemTokens(train.subset(np.sort(indices[:SAMPLES])), data.titles, prompt)


def measure_here(side: str, dataset: Path) -> dict[str, float]:
    """Train in this process; samples and tokens a second, and the peak of its memory."""
    torch.set_num_threads(threads())
    if side != PLAIN:
        return_freed_memory()
    config = SFTConfig(backbone=BACKBONE, bf16=True, batch_size=BATCH, **SIDES[side])
    data = Dataset(dataset)
    backbone, tokenizer = load_backbone(BACKBONE, texts=[], seed=0)
    prompt = NextItemPrompt(tokenizer, max_title_tokens=256, max_prompt_tokens=1024)
    tokens = draw_samples(data, prompt)
    model: Any = backbone if side == PLAIN else _latentr3(config, backbone)
    model.train()
    rows = tokens.packed_rows() if config.packing == "exact" else tokens.single_rows()
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-6)
    used = sorted({token for title in set(data.titles) for token in prompt.encode_target(title)})
    most_tokens = forward_budget(config, backbone.config)

    def epoch(most_batches: int | None = None) -> int:
        seen = 0
        order, collate = row_batches(tokens, rows, BATCH, 1, 0), RowCollator(tokens, rows)
        for indices in itertools.islice(order, most_batches):
            samples = [sample for index in indices for sample in rows[index].samples]
            optimizer.zero_grad(set_to_none=True)
            if side == PLAIN:
                _plain_step(model, padded_rows(tokens, samples))
            else:
                _our_step(model, collate(indices), most_tokens)
            optimizer.step()
            if side != PLAIN:
                trim_heap()
            seen += len(samples)
        return seen

    def train() -> float:
        epoch(most_batches=1)
        begin = time.perf_counter()
        assert [epoch() for _ in range(EPOCHS)] == [SAMPLES] * EPOCHS
        return time.perf_counter() - begin

    if config.output_tokens == "used":
        with model.backbone.restricted_to(torch.tensor(used)):
            seconds = train()
    else:
        seconds = train()
    count = int(tokens.prompt_lengths.sum() + tokens.answer_lengths.sum())
    return {
        "samples_per_s": EPOCHS * SAMPLES / seconds,
        "tokens_per_s": EPOCHS * count / seconds,
        "tokens": count,
        "gb": _peak_gb(),
    }


def _latentr3(config: SFTConfig, backbone: Any) -> LatentR3Model:
    model = LatentR3Model(backbone, n_latents=1)
    if config.gradient_checkpointing:
        model.backbone.enable_checkpointing()
    choose_trainable(config, model)
    return model


def _our_step(model: LatentR3Model, batch: dict[str, Tensor], most_tokens: int) -> None:
    counted = (batch["labels"] != IGNORED).sum()
    for group in split_batch(batch, most_tokens):
        with torch.autocast("cpu", torch.bfloat16):
            loss = -answer_log_probs(model, group).sum() / counted
        loss.backward()


def _plain_step(model: Any, batch: dict[str, Tensor]) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**batch, use_cache=False).loss
    loss.backward()


def _peak_gb() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:")) / 1e9


if __name__ == "__main__":
    print(json.dumps(measure_here(sys.argv[1], Path(sys.argv[2]))))
