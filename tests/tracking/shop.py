"""A tiny shop with a trained model and an evaluation: what registration and serving are tested on."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from latentrec.evaluation.gate import GateDecision
from latentrec.models import read_model
from latentrec.storage import ArtifactWriter
from latentrec.training.sequential import train_sequential
from latentrec.training.sequential_config import SequentialConfig

N_ITEMS = 30


def _sequential_data():
    path = Path(__file__).resolve().parents[1] / "sequential_data.py"
    spec = importlib.util.spec_from_file_location("sequential_data", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Shop:
    """Directories of a dataset and of two models on it."""

    dataset: Path
    popularity: Path
    sasrec: Path


def make_shop(root: Path) -> Shop:
    dataset = _sequential_data().write_dataset(root / "dataset", n_items=N_ITEMS)
    train_sequential(SequentialConfig(encoder="popularity"), dataset=dataset, output=root / "popularity")
    config = SequentialConfig(encoder="sasrec", dim=16, inner_dim=32, layers=1, max_epochs=15)
    train_sequential(config, dataset=dataset, output=root / "sasrec")
    return Shop(dataset, root / "popularity", root / "sasrec")


def decision(
    promote=True, expected=None, reason="promoted: the challenger is better", **figures
) -> GateDecision:
    figures = {"metric": "ndcg_at_10", "challenger": 0.5, "floor": 0.1, **figures}
    return GateDecision(promote=promote, reason=reason, expected_champion=expected, **figures)


def write_evaluation(output: Path, model: Path, gate: GateDecision, **config) -> Path:
    """An evaluation directory with a given verdict on a model."""
    _, manifest = read_model(model)
    inputs = {f"model:{gate.challenger_name}": manifest.fingerprint}
    with ArtifactWriter(
        output, "evaluation", {"beam_width": "10", "host": "bigrec", **config}, inputs
    ) as writer:
        gate.write(writer.path / "gate.json")
        interval = '{"value": 0.5, "low": 0.4, "high": 0.6}'
        (writer.path / "metrics.json").write_text(f'{{"challenger": {{"ndcg_at_10": {interval}}}}}')
    return output
