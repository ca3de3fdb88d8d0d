"""What stage 2 did on validation: on the samples that it chose its weights by, and on those that it did not.

``python -m benchmarks.results.stage2`` scores the models of both stages that ``benchmarks.results`` has
trained. Stage 1 is among the weights that stage 2 may end with, so on its own samples it cannot lose: those
tell what was chosen, the others what it is worth. The test split is not read.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.results.datasets import DATASETS
from benchmarks.results.plan import CELLS, SEEDS
from benchmarks.results.records import ROOT
from benchmarks.results.validation import PAIRS, record_path
from latentrec.catalog import Catalogue
from latentrec.data import Dataset
from latentrec.decoding import load_recommender
from latentrec.evaluation.scoring import score_model
from latentrec.models import read_model
from latentrec.storage import exit_code_on_error
from latentrec.training.text_model import sample_at_most

SAMPLES = 4_000
SAMPLE_SEED = 42
RANK_CUT = 255


def measure(dataset: str, after: str, before: str, seed: int, work: Path) -> Path | None:
    """Rank validation samples by both models; ``None`` where a model is not there.

    Returns:
        The record: user, both ranks of the target's title, and whether stage 2 chose by the sample.
    """
    path = record_path(dataset, after, seed)
    models = {name: work / dataset / f"seed{seed}" / name for name in (before, after)}
    if path.exists():
        return path
    if not all((model / "manifest.json").is_file() for model in models.values()):
        return None
    data = Dataset(work / dataset / "dataset")
    catalogue, valid = Catalogue.from_dataset(data), data.split("valid")
    config = read_model(models[after])[0].config
    chosen_by = np.zeros(len(valid), bool)
    chosen_by[sample_at_most(len(valid), config["ranking_samples"], config["seed"])] = True
    drawn = sample_at_most(len(valid), SAMPLES, SAMPLE_SEED)
    samples = valid.subset(drawn)
    columns = {
        "user_id": pa.array(samples.user_ids.astype(np.int32)),
        "chosen_by": pa.array(chosen_by[drawn]),
    }
    for name, model in models.items():
        recommender = load_recommender(model, catalogue, name=name, host=CELLS[name].host)
        ranks = score_model(recommender, samples, catalogue).title_ranks
        role = "after" if name == after else "before"
        columns[role] = pa.array(np.minimum(ranks, RANK_CUT).astype(np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".writing")
    pq.write_table(pa.table(columns), temporary, compression="zstd")
    temporary.replace(path)
    return path


def main() -> None:
    """Measure what has no record yet."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results.stage2", description=__doc__)
    parser.add_argument("--work", type=Path, default=ROOT / os.environ.get("RUNS_DIR", "runs") / "results")
    parser.add_argument("--datasets", nargs="+", choices=list(DATASETS), default=list(DATASETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    arguments = parser.parse_args()
    with exit_code_on_error():
        for dataset in arguments.datasets:
            for after, before in PAIRS:
                for seed in arguments.seeds:
                    if path := measure(dataset, after, before, seed, arguments.work):
                        print(path.relative_to(ROOT), flush=True)


if __name__ == "__main__":
    main()
