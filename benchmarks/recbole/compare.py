"""Both sides trained on the same samples, and what their ranks say with intervals by user."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recbole import theirs
from benchmarks.recbole.files import export
from latentrec.catalog import Catalogue
from latentrec.core import UserError
from latentrec.data import DataPrepConfig, Dataset, prepare
from latentrec.metrics import ClusterBootstrap, hit_rate_at_k, ndcg_at_k
from latentrec.models import read_model
from latentrec.models.sequential import SequentialRecommender
from latentrec.training.sequential.sequential_config import SequentialConfig
from latentrec.training.sequential.train import train_sequential

SHAPE = {"hidden_size": 64, "inner_dim": 256, "layers": 2, "heads": 2}
GAMES = "amazon2018/Video_Games_sequences"
FILES = "games"
METRICS = {"HR@10": hit_rate_at_k, "NDCG@10": ndcg_at_k}
USERS_AT_ONCE = 512


@dataclass(frozen=True)
class Setup:
    """What is the same for both sides, and where things are; fields as the command's flags."""

    data: Path
    python: Path
    work: Path
    users: int
    max_history: int
    patience: int
    max_epochs: int
    recbole_batches: tuple[int, ...]

    @property
    def dataset(self) -> Path:
        """The dataset directory."""
        return self.work / "dataset"

    def place(self, name: str, seed: int) -> Path:
        """Directory of one training; another stopping rule is another training."""
        return self.work / f"{name}-patience{self.patience}-epochs{self.max_epochs}-seed{seed}"


@dataclass(frozen=True)
class Side:
    """One trained model: rank of each test target from 1, int64 (S,), and what to tell of the training."""

    ranks: np.ndarray
    told: dict[str, Any]


def train_both(setup: Setup, seed: int) -> dict[str, Side]:
    """Train ours and RecBole's with one seed; what is there from an earlier call is read."""
    if not (setup.dataset / "manifest.json").is_file():
        config = DataPrepConfig(
            reviews=(str(setup.data / GAMES / "Video_Games.json.gz"),),
            metadata=(str(setup.data / GAMES / "meta_Video_Games.json.gz"),),
            k_core=1,
            split="leave_one_out",
            max_users=setup.users,
            max_history=setup.max_history,
        )
        prepare(config, setup.dataset)
    dataset = Dataset(setup.dataset)
    counts = export(dataset, setup.work / "atomic", FILES)
    theirs_each = [_theirs(setup, dataset, counts, batch, seed) for batch in setup.recbole_batches]
    best = max(theirs_each, key=lambda side: side.told["valid_ndcg_at_10"])
    best.told["tried"] = {
        str(side.told["batch_size"]): round(side.told["valid_ndcg_at_10"], 4) for side in theirs_each
    }
    return {"ours": _ours(setup, dataset, seed), "RecBole": best}


def compare(setup: Setup, sides: dict[int, dict[str, Side]]) -> dict[str, Any]:
    """Figures of both sides and their paired difference; a user's value is the mean over the seeds."""
    dataset = Dataset(setup.dataset, verify=False)
    test = dataset.split("test")
    bootstrap = ClusterBootstrap(test.user_ids)
    table: list[dict[str, str]] = []
    found: dict[str, float] = {}
    for metric, function in METRICS.items():
        values = {
            name: np.mean([function(pair[name].ranks, 10) for pair in sides.values()], axis=0)
            for name in ("ours", "RecBole")
        }
        ours, reference = bootstrap.intervals(np.column_stack([values["ours"], values["RecBole"]]))
        paired = bootstrap.compare(values["ours"], values["RecBole"])
        found |= {f"ours {metric}": ours.value, f"RecBole {metric}": reference.value}
        table.append(
            {
                "metric": metric,
                "ours": f"{ours.value:.4f} [{ours.low:.4f}, {ours.high:.4f}]",
                "RecBole": f"{reference.value:.4f} [{reference.low:.4f}, {reference.high:.4f}]",
                "ours − RecBole": f"{paired.difference:+.4f} [{paired.low:+.4f}, {paired.high:+.4f}]",
                "p (permutation)": f"{paired.p_value:.4f}",
                "not below beyond the interval": "yes" if paired.high >= 0 else "NO",
            }
        )
    runs = {
        f"{name}, seed {seed}": {key: value for key, value in side.told.items() if key != "curve"}
        for seed, pair in sides.items()
        for name, side in pair.items()
    }
    versions = next(iter(sides.values()))["RecBole"].told["versions"]
    for name, told in runs.items():
        print(f"{name}: {json.dumps(told)}")
    for row in table:
        print(" | ".join(row.values()))
    return {
        **found,
        "table": table,
        "runs": runs,
        "reference": f"SASRec of RecBole {versions['recbole']} (torch {versions['torch']}, numpy "
        f"{versions['numpy']}), trained on the same samples; its defaults: Adam at 1e-3, dropout 0.5",
        "note": "item level, the whole catalogue ranked, histories not masked; 95 % intervals by resampling "
        "users, paired; a user's value is the mean over seeds; both stop on validation NDCG@10",
        "sizes": {
            "data": "Video Games, leave-one-out",
            "users": setup.users,
            "train samples": len(dataset.split("train")),
            "test samples": len(test),
            "items": dataset.n_items,
            "longest history": setup.max_history,
            **SHAPE,
            "patience": setup.patience,
            "seeds": ", ".join(map(str, sides)),
        },
    }


def recbole_config(setup: Setup, batch: int, seed: int) -> dict[str, Any]:
    """RecBole's settings: ours where both must agree, its own defaults for the rest.

    Its ``stopping_step`` lets one more epoch without improvement pass than ``patience`` does here.
    """
    return {
        "data_path": str((setup.work / "atomic").resolve()),
        "benchmark_filename": ["train", "valid", "test"],
        "load_col": {"inter": ["user_id", "item_id_list", "item_id"], "item": ["item_id"]},
        "alias_of_item_id": ["item_id_list"],
        "MAX_ITEM_LIST_LENGTH": setup.max_history,
        "hidden_size": SHAPE["hidden_size"],
        "inner_size": SHAPE["inner_dim"],
        "n_layers": SHAPE["layers"],
        "n_heads": SHAPE["heads"],
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "repeatable": True,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "metrics": ["Hit", "NDCG"],
        "topk": [10],
        "valid_metric": "NDCG@10",
        "metric_decimal_place": 6,
        "epochs": setup.max_epochs,
        "stopping_step": setup.patience,
        "train_batch_size": batch,
        "eval_batch_size": USERS_AT_ONCE,
        "seed": seed,
        "use_gpu": False,
        "gpu_id": "",
        "show_progress": False,
        "save_dataset": False,
        "state": "WARNING",
    }


def _theirs(setup: Setup, dataset: Dataset, counts: dict[str, int], batch: int, seed: int) -> Side:
    place = setup.place(f"recbole-batch{batch}", seed)
    if not (place / "result.json").is_file():
        place.mkdir(parents=True, exist_ok=True)
        settings = {"dataset": FILES, "threads": 1, "config": recbole_config(setup, batch, seed)}
        (place / "settings.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
        with (place / "output.txt").open("w", encoding="utf-8") as log:
            script = str(Path(theirs.__file__).resolve())
            code = subprocess.call(
                [str(setup.python.absolute()), script, "settings.json", "."],
                cwd=place,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        if code:
            tail = "\n".join((place / "output.txt").read_text(encoding="utf-8").splitlines()[-8:])
            raise UserError(f"RecBole exited with {code} (log: {place / 'output.txt'}):\n{tail}")
    told = json.loads((place / "result.json").read_text(encoding="utf-8"))
    ranks = np.load(place / "ranks.npy", allow_pickle=False)
    targets = np.load(place / "targets.npy", allow_pickle=False)
    if told["samples"] != counts or told["items"] != dataset.n_items:
        raise UserError(f"RecBole read {told['samples']}, {told['items']} items; written were {counts}")
    if not np.array_equal(targets, dataset.split("test").targets):
        raise UserError("RecBole's test targets are not ours in our order")
    for name, function in (("hit@10", hit_rate_at_k), ("ndcg@10", ndcg_at_k)):
        if abs(function(ranks, 10).mean() - told["own_figures"][name]) > 1e-5:
            raise UserError(f"RecBole's own {name} is {told['own_figures'][name]}, of its ranks another")
    return Side(ranks, {**told, "epochs": len(told["curve"]), "batch_size": batch})


def _ours(setup: Setup, dataset: Dataset, seed: int) -> Side:
    output = setup.place("ours", seed)
    config = SequentialConfig(
        **SHAPE,  # type: ignore[arg-type]
        max_length=setup.max_history,
        num_train_epochs=setup.max_epochs,
        patience=setup.patience,
        seed=seed,
    )
    if not (output / "manifest.json").is_file():
        train_sequential(config, dataset=setup.dataset, output=output)
    info, _ = read_model(output)
    recommender = SequentialRecommender.load(output, Catalogue.from_dataset(dataset))
    test = dataset.split("test")
    histories = test.histories()
    ranks = [
        theirs.ranks_of(recommender.item_logits(histories[start:stop]), test.targets[start:stop])
        for start in range(0, len(test), USERS_AT_ONCE)
        for stop in (min(len(test), start + USERS_AT_ONCE),)
    ]
    told = {
        "best_epoch": int(info.metrics["best_epoch"]),
        "epochs": int(info.metrics["epochs"]),
        "valid_ndcg_at_10": info.metrics["ndcg_at_10"],
        "batch_size": config.targets_per_batch(len(dataset.split("train"))),
        "learning_rate": config.learning_rate,
        "dropout": [info.architecture["hidden_dropout"], info.architecture["attention_dropout"]],
        "packing": config.packing,
    }
    return Side(np.concatenate(ranks), told)
