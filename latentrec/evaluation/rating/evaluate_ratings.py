"""The evaluation step for rating models: MAE and its kin against baselines, comparison, gate, report.

The gate's metric is −MAE with the user mean as the floor. Answers that could not be read are scored with the
user's mean and counted; a model that never answers therefore equals the floor and is not promoted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from latentrec.core import UserError
from latentrec.data.dataset import Dataset
from latentrec.evaluation.evaluate_config import Champion, EvaluateConfig
from latentrec.evaluation.gate import GateDecision, decide
from latentrec.evaluation.ranking.result import file_name
from latentrec.evaluation.rating.rating_scores import (
    FLOOR,
    RatingScores,
    chosen_examples,
    score_baselines,
    score_language_model,
)
from latentrec.evaluation.report.rating_report import RatingEvaluation, write_rating_reports
from latentrec.metrics import ClusterBootstrap
from latentrec.metrics.ratings import confusion
from latentrec.models import ModelInfo, read_model
from latentrec.prompts.rating_examples import RatingExample, RatingTask
from latentrec.storage import ArtifactWriter, Manifest
from latentrec.training.common.metric_logger import MetricLogger, NullMetricLogger

METRIC = "neg_mae"


def evaluate_ratings(
    config: EvaluateConfig,
    *,
    dataset: str | Path,
    models: Mapping[str, str | Path],
    output: str | Path,
    champion: Champion | None = None,
    metric_logger: MetricLogger | None = None,
) -> Manifest:
    """Judge rating models on a split and write an evaluation directory (contracts.md).

    Args:
        config: settings; of the metrics only the split, the names, the resampling and the margin are read.
        dataset: a dataset directory made with ``--task rating``.
        models: name → model directory, in the order of the tables; the baselines are added before them.
        output: directory to make.
        champion: who holds the alias now; answers the same samples.
        metric_logger: receives ``<model>/<metric>`` of every model, once.

    Raises:
        UserError: no models, a name that a baseline has, a dataset of another task, or a model of another
        kind.
    """
    metric_logger = metric_logger or NullMetricLogger()
    if not models:
        raise UserError("evaluate needs at least one model: --model NAME=DIR")
    data = Dataset(dataset)
    task = RatingTask(data)
    examples = chosen_examples(task, config.split, max_users=config.max_users, seed=config.seed)
    scores = score_baselines(task, examples, seed=config.seed, split=config.split)
    taken = {score.name for score in scores}
    infos: dict[str, ModelInfo] = {}
    inputs = {"dataset": data.fingerprint}
    judged = dict(models)
    if champion is not None:
        if champion.label in judged:
            raise UserError(
                f"a model is called {champion.label!r}, which is the champion's name in the tables"
            )
        judged[champion.label] = champion.directory
    for name, directory in judged.items():
        if name in taken:
            raise UserError(f"a model is called {name!r}, which is a baseline's name; choose another")
        info, manifest = read_model(directory)
        infos[name] = info
        inputs[f"model:{name}"] = manifest.fingerprint
        scores.append(score_language_model(name, directory, task, examples, batch_size=config.batch_size))
    challenger = config.challenger or list(models)[-1]
    if challenger not in judged:
        raise UserError(f"EvaluateConfig.challenger is {challenger!r}; the models are: {', '.join(judged)}")
    bootstrap = ClusterBootstrap(
        np.array([example.user_id for example in examples]), n_resamples=config.n_resamples, seed=config.seed
    )
    evaluation = RatingEvaluation(
        config=config,
        dataset=data,
        examples=examples,
        scores=scores,
        infos=infos,
        directories={name: Path(directory) for name, directory in judged.items()},
        table={score.name: score.metrics(bootstrap) for score in scores},
        comparisons=_comparisons(scores, bootstrap, config.baseline or FLOOR, champion),
        gate=_gate(config, scores, examples, data, task, infos, challenger, champion),
        champion=champion.label if champion else None,
    )
    writer = ArtifactWriter(
        output,
        "evaluation",
        config,
        inputs,
        unhashed=("report.html", "report.md", "metrics.json"),
    )
    with writer:
        _write(evaluation, writer)
    for name, metrics in evaluation.table.items():
        logged = name.replace(" + ", "_").replace(" ", "_")
        metric_logger.log_metrics(
            {f"{logged}/{metric}": interval.value for metric, interval in metrics.items()}, 0
        )
    assert writer.manifest is not None
    return writer.manifest


def _comparisons(
    scores: list[RatingScores], bootstrap: ClusterBootstrap, baseline: str, champion: Champion | None
) -> dict[str, list[dict[str, Any]]]:
    """Absolute error of every model minus that of the baseline, the champion: below 0 is better."""
    by_name = {score.name: score for score in scores}
    if baseline not in by_name:
        raise UserError(f"EvaluateConfig.baseline is {baseline!r}; there are: {', '.join(by_name)}")
    references = {"against_baseline": baseline}
    if champion is not None:
        references["against_champion"] = champion.label
    return {
        role: [
            {
                "model": score.name,
                "reference": reference,
                "metric": "mae",
                **asdict(bootstrap.compare(score.errors.absolute, by_name[reference].errors.absolute)),
            }
            for score in scores
            if score.name != reference
        ]
        for role, reference in references.items()
    }


def _gate(
    config: EvaluateConfig,
    scores: list[RatingScores],
    examples: list[RatingExample],
    data: Dataset,
    task: RatingTask,
    infos: dict[str, ModelInfo],
    challenger: str,
    champion: Champion | None,
) -> GateDecision:
    negated = {score.name: -score.errors.absolute for score in scores}
    given: dict[str, Any] = {}
    if champion is not None:
        info = infos[champion.label]
        comparable = np.ones(len(examples), bool)
        if info.dataset_fingerprint != data.fingerprint:
            comparable = task.timestamps_of([example.row for example in examples]) > info.train_end
        by_name = {score.name: score for score in scores}
        given = {
            "champion": negated[champion.label],
            "champion_name": champion.label,
            "champion_version": champion.version,
            "comparable": comparable,
            "unscorable": by_name[champion.label].errors.unparsable,
        }
    return decide(
        metric=METRIC,
        users=np.array([example.user_id for example in examples]),
        challenger=negated[challenger],
        floor=negated[FLOOR],
        challenger_name=challenger,
        floor_name=FLOOR,
        margin=config.promotion_margin,
        n_resamples=config.n_resamples,
        seed=config.seed,
        **given,
    )


def _write(evaluation: RatingEvaluation, writer: ArtifactWriter) -> None:
    table = {
        name: {metric: asdict(interval) for metric, interval in metrics.items()}
        for name, metrics in evaluation.table.items()
    }
    truth = np.array([example.rating for example in evaluation.examples])
    tables = {score.name: confusion(score.predicted, truth).tolist() for score in evaluation.scores}
    comparison = {
        "models": [score.name for score in evaluation.scores],
        "baseline": evaluation.config.baseline or FLOOR,
        "champion": evaluation.champion,
        **evaluation.comparisons,
    }
    for name, body in (("metrics.json", table), ("comparison.json", comparison), ("confusion.json", tables)):
        (writer.path / name).write_text(json.dumps(body, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    evaluation.gate.write(writer.path / "gate.json")
    for score in evaluation.scores:
        _write_predictions(writer.path / f"predictions_{file_name(score.name)}.parquet", score, evaluation)
    write_rating_reports(evaluation, writer.path)
    writer.counts = {
        "samples": len(evaluation.examples),
        "users": len({example.user_id for example in evaluation.examples}),
        "models": len(evaluation.scores),
    }
    writer.extra = {
        "dataset_fingerprint": evaluation.dataset.fingerprint,
        "challenger": evaluation.gate.challenger_name,
        "champion": evaluation.champion,
    }


def _write_predictions(path: Path, score: RatingScores, evaluation: RatingEvaluation) -> None:
    examples = evaluation.examples
    table = pa.table(
        {
            "user_id": pa.array([example.user_id for example in examples], pa.int32()),
            "target": pa.array([example.target for example in examples], pa.int32()),
            "row": pa.array([example.row for example in examples], pa.int64()),
            "rating": pa.array([example.rating for example in examples], pa.float32()),
            "predicted": pa.array(score.predicted, pa.float32(), from_pandas=True),
            "absolute_error": pa.array(score.errors.absolute, pa.float32()),
            "fault": pa.array(score.faults, pa.string()),
            "text": pa.array(score.texts, pa.string()),
            "prompt_tokens": pa.array(score.tokens[:, 0], pa.int32()),
            "completion_tokens": pa.array(score.tokens[:, 1], pa.int32()),
        }
    )
    pq.write_table(table, path, compression="zstd")
