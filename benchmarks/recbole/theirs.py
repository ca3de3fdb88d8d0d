"""RecBole's side, run by the Python that RecBole is installed in; it knows nothing of this project.

    PYTHON theirs.py SETTINGS.json OUTPUT

``SETTINGS.json`` holds ``config`` (RecBole's own settings) and ``threads``; ``OUTPUT`` gets ``ranks.npy``
(rank of each test target among all items, from 1, in the order of the test file), ``targets.npy`` (those
targets, as the file names them) and ``result.json``.
The best epoch's weights are kept in memory, so no checkpoint is pickled.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def ranks_of(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Place of each target by score, from 1: one more than the number of items that score higher.

    Args:
        scores: float (S, n_items).
        targets: int (S,).
    """
    own = scores[np.arange(len(targets)), targets]
    return 1 + (scores > own[:, None]).sum(axis=1)


def main(settings: dict[str, Any], output: Path) -> None:
    """Train SASRec to its early stop, rank the whole catalogue for every test sample."""
    import recbole
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_logger, init_seed

    torch.set_num_threads(settings["threads"])
    config = Config(model="SASRec", dataset=settings["dataset"], config_dict=settings["config"])
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    train, valid, test = data_preparation(config, create_dataset(config))
    init_seed(config["seed"], config["reproducibility"])
    model = get_model("SASRec")(config, train.dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], "SASRec")(config, model)
    curve: list[float] = []
    best: dict[str, Any] = {}

    def keep_best(epoch: int, value: float) -> None:
        if not curve or value > max(curve):
            best.update(epoch=epoch + 1, weights={k: v.clone() for k, v in model.state_dict().items()})
        curve.append(float(value))
        print(f"epoch {epoch + 1}: validation NDCG@10 {value:.4f}, best {max(curve):.4f}", flush=True)

    wall, processor = time.perf_counter(), time.process_time()
    trainer.fit(train, valid, verbose=False, saved=False, callback_fn=keep_best)
    seconds = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
    model.load_state_dict(best["weights"])
    own_figures = trainer.evaluate(test, load_best_model=False)
    model.eval()
    ranks, names = [], []
    with torch.no_grad():
        for batch, history, _, targets in test:
            if history is not None:
                raise SystemExit("RecBole masks the history here; set repeatable")
            scores = model.full_sort_predict(batch.to(config["device"]))
            scores[:, 0] = -torch.inf  # the padding item
            ranks.append(ranks_of(scores.cpu().numpy(), targets.numpy()))
            names.append(test.dataset.id2token(test.dataset.iid_field, targets.numpy()).astype(np.int64))
    output.mkdir(parents=True, exist_ok=True)
    np.save(output / "ranks.npy", np.concatenate(ranks))
    np.save(output / "targets.npy", np.concatenate(names))
    result = {
        "curve": curve,
        "best_epoch": best["epoch"],
        "valid_ndcg_at_10": max(curve),
        "own_figures": {name: float(value) for name, value in own_figures.items()},
        "parameters": sum(value.numel() for value in model.parameters()),
        "items": int(train.dataset.item_num) - 1,
        "samples": {"train": len(train.dataset), "valid": len(valid.dataset), "test": len(test.dataset)},
        "seconds": seconds,
        "versions": {"recbole": recbole.__version__, "torch": torch.__version__, "numpy": np.__version__},
    }
    (output / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
