"""One request at a time to a LatentR³ model on SmolLM2-135M over Office Products' 3,317 titles.

Every setting runs in a process of its own: seconds until the service has loaded the model and answered its
warm-up, the latency of requests that come one after another, resident memory. Histories are validation's.

    python -m benchmarks.pretrained_serving [--model DIR]

Without ``--model`` the model is SmolLM2 with a LatentRATT that was not trained: a pass costs the same, but
a beam may end sooner after a trained one, for which a title's ending is more certain.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.decoding_rivals import allowed_next, transformers_generate
from benchmarks.harness import record
from benchmarks.pretrained_training import BACKBONE, office
from benchmarks.serving import write_untrained
from latentrec.catalog import Catalogue
from latentrec.data import Dataset, sample_at_most
from latentrec.decoding import DecodingOptions, beam_search
from latentrec.models.latentr3 import LatentR3Model, load_backbone, load_latentr3
from latentrec.prompts import NextItemPrompt
from latentrec.serving.recommendation_service import RecommendationService, ServingModel
from latentrec.serving.request_schemas import Parameters, RecommendationRow

ROOT = Path(__file__).resolve().parents[1]
GOAL = {"p50_ms": 300.0, "load_s": 10.0, "memory_mb": 1500.0}
SETTINGS: dict[str, dict[str, Any]] = {
    "float32, 10 beams": {"dtype": "float32", "beam_width": 10},
    "bfloat16, 10 beams": {"dtype": "bfloat16", "beam_width": 10},
    "bfloat16, 10 beams, a token at a time": {"dtype": "bfloat16", "beam_width": 10},
}
STEPWISE = "bfloat16, 10 beams, a token at a time"
"""The control of :mod:`latentrec.decoding.read_ahead`."""
PLAIN = {
    "transformers generate, float32": "float32",
    "transformers generate, bfloat16": "bfloat16",
}
"""Plain transformers on the same backbone (N = 0): beam search under a prefix function, with a cache."""
REQUESTS = 40
FEWER_REQUESTS = 2
"""Of transformers' generation, which takes many seconds."""


def run(model: Path | None = None) -> None:
    """Measure and record ``pretrained_serving``."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        dataset = office(root)
        if model is None:
            model = untrained(root / "model", dataset)
        table: list[dict[str, Any]] = [
            {"setting": setting, **measured(setting, model, dataset)} for setting in (*SETTINGS, *PLAIN)
        ]
    found = {row["setting"]: row for row in table}
    ours, reference = found["bfloat16, 10 beams"], found["transformers generate, bfloat16"]
    record(
        "pretrained_serving",
        ours["p50_ms"],
        reference["p50_ms"],
        "ms a request, median",
        REQUESTS,
        {"backbone": BACKBONE, "titles": "3,317 of Office Products", "k": 10, "threads": threads()},
        reference_is="transformers generate on the same backbone without latents, 10 beams, KV cache, a "
        "prefix function over the titles' tokens",
        goal=GOAL,
        table=table,
    )


def untrained(output: Path, dataset: Path) -> Path:
    """A model directory over a dataset's catalogue: the backbone as it is, LatentRATT as it begins."""
    torch.manual_seed(0)
    data = Dataset(dataset)
    backbone, tokenizer = load_backbone(BACKBONE, texts=[], seed=0)
    prompt = NextItemPrompt(tokenizer, max_title_tokens=256, max_prompt_tokens=1024)
    model = LatentR3Model(backbone)
    write_untrained(output, model, tokenizer, prompt, Catalogue.from_dataset(data))
    return output


def threads() -> int:
    """Threads of the model."""
    return int(os.environ.get("BENCH_THREADS", "2"))


def measured(setting: str, model: Path, dataset: Path) -> dict[str, float]:
    """One setting in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.pretrained_serving", "--setting", setting]
    command += ["--model", str(model), "--dataset", str(dataset)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(setting, figures, flush=True)
    return figures


def measure_here(setting: str, model: Path, dataset: Path) -> dict[str, float]:
    """Load, ask, and look at the memory of this process."""
    torch.set_num_threads(threads())
    if setting == STEPWISE:
        beam_search.READ_AHEAD = beam_search.READ_AHEAD_ALONE = 0
    slow = setting in PLAIN
    valid, items = Dataset(dataset).split("valid"), Catalogue.read(model / "items.parquet")
    drawn = valid.subset(sample_at_most(len(valid), FEWER_REQUESTS if slow else REQUESTS, 0))
    rows = [[int(item) for item in history] for history in drawn.histories()]
    begin = time.perf_counter()
    ask = _generation(PLAIN[setting], model, items) if setting in PLAIN else _service(setting, model, items)
    loaded = time.perf_counter() - begin
    milliseconds = []
    for row in rows:
        begin = time.perf_counter()
        ask(row)
        milliseconds.append(1e3 * (time.perf_counter() - begin))
    memory = psutil.Process().memory_info()
    return {
        "load_s": loaded,
        "p50_ms": float(np.percentile(milliseconds, 50)),
        "p90_ms": float(np.percentile(milliseconds, 90)),
        "memory_mb": memory.rss / 1e6,
        "requests": len(rows),
    }


def _service(setting: str, model: Path, items: Catalogue) -> Callable[[list[int]], object]:
    options = DecodingOptions(decoding="catalogue", **SETTINGS[setting])
    service = RecommendationService(ServingModel.load(model, model / "items.parquet", options))
    return lambda row: service.recommend([RecommendationRow([items.item_keys[i] for i in row])], Parameters())


def _generation(dtype: str, model: Path, items: Catalogue) -> Callable[[list[int]], object]:
    loaded = load_latentr3(model, dtype=dtype)
    backbone, prompt = loaded.model.backbone.model, loaded.prompt
    sequences = [prompt.encode_target(title) for title in dict.fromkeys(items.titles)]
    table, depth = allowed_next(sequences), max(map(len, sequences))

    @torch.no_grad()
    def ask(row: list[int]) -> object:
        ids = torch.tensor([prompt.encode_history([items.titles[item] for item in row])])
        mask = torch.ones_like(ids)
        return transformers_generate(backbone, table, depth, ids, mask, prompt.eos_id, use_cache=True)

    return ask


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a model directory over Office Products' catalogue")
    parser.add_argument("--setting", choices=[*SETTINGS, *PLAIN], help="measure one setting in this process")
    parser.add_argument("--dataset", type=Path, help="of --setting")
    given = parser.parse_args()
    if given.setting:
        print(json.dumps(measure_here(given.setting, given.model, given.dataset)))
    else:
        run(given.model)
