"""What stage 2 did on validation: on the samples that it chose its weights by, and on those that it did not.

Stage 1 is among the weights that stage 2 may end with: the samples that it chose by tell what was chosen,
the others what it is worth. The test split is not read.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.results.plan import CELLS
from benchmarks.results.records import ROOT
from benchmarks.results.validation import PAIRS, record_path
from latentrec.catalog import Catalogue
from latentrec.data import Dataset, sample_at_most
from latentrec.decoding import DecodingOptions, load_recommender
from latentrec.evaluation.ranking.scoring import score_model
from latentrec.models import read_model

SAMPLES = 4_000
SAMPLE_SEED = 42
RANK_CUT = 255


def measure(dataset: str, after: str, before: str, seed: int, work: Path) -> Path | None:
    """Rank validation samples by both models; ``None`` where a model is not there.

    Returns:
        The record: user, both ranks of the target's title, and whether stage 2 chose by the sample.
    """
    path = record_path(dataset, after, seed)
    models = {name: work / dataset / f"seed{seed}" / (CELLS[name].model or name) for name in (before, after)}
    if path.exists():
        return path
    if not all((model / "manifest.json").is_file() for model in models.values()):
        return None
    data = Dataset(work / dataset / "dataset")
    catalogue, valid = Catalogue.from_dataset(data), data.split("valid")
    config = read_model(models[after])[0].config
    chosen_by = np.zeros(len(valid), bool)
    ranked = config["metric_for_best_model"] == "ndcg_at_10"
    evaluated_at = config["ranking_samples" if ranked else "validation_samples"]
    chosen_by[sample_at_most(len(valid), evaluated_at, config["seed"])] = True
    drawn = sample_at_most(len(valid), SAMPLES, SAMPLE_SEED)
    samples = valid.subset(drawn)
    columns = {
        "user_id": pa.array(samples.user_ids.astype(np.int32)),
        "chosen_by": pa.array(chosen_by[drawn]),
    }
    for name, model in models.items():
        recommender = load_recommender(
            model, catalogue, DecodingOptions(decoding=CELLS[name].decoding), name=name
        )
        ranks = score_model(recommender, samples, catalogue).title_ranks
        role = "after" if name == after else "before"
        columns[role] = pa.array(np.minimum(ranks, RANK_CUT).astype(np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".writing")
    pq.write_table(pa.table(columns), temporary, compression="zstd")
    temporary.replace(path)
    return path


def measure_all(datasets: Sequence[str], seeds: Sequence[int], work: Path, deadline: float) -> None:
    """Measure what has models and no record yet; begins nothing after ``deadline`` (monotonic seconds)."""
    for dataset in datasets:
        for after, before in PAIRS:
            for seed in seeds:
                if time.monotonic() > deadline:
                    return
                if path := measure(dataset, after, before, seed, work):
                    print(f"done: {path.relative_to(ROOT)}", flush=True)
