"""The files of an evaluation directory: metrics, comparisons, costs, the gate's decision, lists, reports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from latentrec.evaluation.gate_decision import GateDecision
from latentrec.evaluation.ranking.result import Evaluation, file_name
from latentrec.evaluation.ranking.scoring import ModelScores, shown_lengths
from latentrec.evaluation.ranking.tables import against
from latentrec.evaluation.report.console_table import group_name
from latentrec.evaluation.report.ranking_report import write_reports
from latentrec.metrics import Interval
from latentrec.storage import ArtifactWriter
from latentrec.training.common.metric_logger import MetricLogger

Table = Mapping[str, Mapping[str, Interval]]


def write_evaluation(evaluation: Evaluation, writer: ArtifactWriter) -> None:
    """Write every file, and what the manifest says about them.

    ``served_as`` in the manifest is how each model was decoded: registration serves the challenger so.
    """
    comparison = {
        "models": [model.name for model in evaluation.models],
        "baseline": evaluation.baseline,
        "champion": evaluation.champion,
        "against_baseline": against(evaluation.comparisons, evaluation.baseline),
        "against_champion": against(evaluation.comparisons, evaluation.champion or ""),
        "pairs": evaluation.comparisons,
        "slices": evaluation.slices,
        "alphas": {name: asdict(choice) for name, choice in evaluation.alphas.items()},
        "warnings": evaluation.warnings,
    }
    costs = {name: asdict(cost) for name, cost in evaluation.costs.items()}
    write_figures(writer.path, evaluation.table, evaluation.gate, comparison=comparison, costs=costs)
    for model in evaluation.models:
        _write_predictions(writer.path / f"predictions_{file_name(model.name)}.parquet", model, evaluation)
    write_reports(evaluation, writer.path)
    writer.counts = {
        "samples": len(evaluation.samples),
        "users": len(np.unique(evaluation.samples.user_ids)),
        "models": len(evaluation.models),
    }
    writer.extra = {
        "dataset_fingerprint": evaluation.dataset.fingerprint,
        "challenger": evaluation.gate.challenger_name,
        "champion": evaluation.champion,
        "served_as": {name: options.to_config() for name, options in evaluation.served_as.items()},
        "assistant": evaluation.assistant,
    }


def write_figures(directory: Path, table: Table, gate: GateDecision, **bodies: Any) -> None:
    """Write ``metrics.json``, ``gate.json`` and a JSON file for each of ``bodies``."""
    bodies["metrics"] = {
        name: {metric: asdict(interval) for metric, interval in metrics.items()}
        for name, metrics in table.items()
    }
    for name, body in bodies.items():
        text = json.dumps(body, indent=2, sort_keys=True) + "\n"
        (directory / f"{name}.json").write_text(text, encoding="utf-8")
    gate.write(directory / "gate.json")


def log_table(metric_logger: MetricLogger, table: Table) -> None:
    """Log every figure as ``<model>/<metric>``."""
    for name, metrics in table.items():
        figures = {f"{group_name(name)}/{metric}": interval.value for metric, interval in metrics.items()}
        metric_logger.log_metrics(figures, 0)


def _write_predictions(path: Path, model: ModelScores, evaluation: Evaluation) -> None:
    """One row a sample, with ids as in the dataset and with the shop's own keys beside them.

    Ranks count from 1; 0 is a target that the list does not hold.
    """
    samples, catalogue = evaluation.samples, evaluation.catalogue
    kept = np.arange(model.ranked.shape[1]) < shown_lengths(model, catalogue.title_ids)[:, None]
    offsets = pa.array(np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int32))
    item_keys = pa.array(catalogue.item_keys, pa.string())
    user_keys = evaluation.dataset.users["user_key"].combine_chunks()
    table = pa.table(
        {
            "user_id": pa.array(samples.user_ids),
            "user_key": user_keys.take(pa.array(samples.user_ids)),
            "target": pa.array(samples.targets),
            "target_key": item_keys.take(pa.array(samples.targets)),
            "ranked": pa.ListArray.from_arrays(offsets, pa.array(model.ranked[kept])),
            "ranked_keys": pa.ListArray.from_arrays(offsets, item_keys.take(pa.array(model.ranked[kept]))),
            "title_rank": pa.array(model.title_ranks.astype(np.int32)),
            "item_rank": pa.array(model.item_ranks.astype(np.int32)),
            "scores": pa.ListArray.from_arrays(offsets, pa.array(model.scores[kept])),
        }
    )
    pq.write_table(table, path, compression="zstd")
