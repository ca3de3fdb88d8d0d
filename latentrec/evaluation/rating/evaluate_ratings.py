"""The evaluation step for rating models: MAE and its kin against baselines, comparison, gate, report.

The gate's metric is −MAE. A challenger has to exceed the best constant or bias model, must not be below any
other baseline beyond the interval, and must give answers that can be read. Answers that could not be read are
scored with the user's mean and counted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from latentrec.catalog import MIN_OVERLAP, Catalogue
from latentrec.core import UserError
from latentrec.data.dataset import Dataset
from latentrec.evaluation.evaluate_config import Champion, EvaluateConfig
from latentrec.evaluation.gate_decision import GateDecision
from latentrec.evaluation.gate_inputs import champion_overlap, decide_for
from latentrec.evaluation.leakage import leak_warnings, leaks
from latentrec.evaluation.ranking.result import file_name
from latentrec.evaluation.ranking.roles import named, named_runs
from latentrec.evaluation.rating.rating_scores import (
    TRIVIAL,
    RatingScores,
    chosen_examples,
    score_baselines,
    score_language_model,
    strongest_trivial,
)
from latentrec.evaluation.report.evaluation_files import log_table, write_figures
from latentrec.evaluation.report.rating_report import RatingEvaluation, write_rating_reports
from latentrec.metrics import ClusterBootstrap
from latentrec.metrics.rating import confusion
from latentrec.models import ModelInfo, read_model
from latentrec.prompts.rating_examples import RatingExample, RatingTask
from latentrec.storage import ArtifactWriter, Manifest
from latentrec.training.common.metric_logger import MetricLogger

METRIC = "neg_mae"


def evaluate_ratings(
    config: EvaluateConfig,
    data: Dataset,
    models: Mapping[str, str | Path | Sequence[str | Path]],
    output: str | Path,
    champion: Champion | None,
    metric_logger: MetricLogger,
) -> Manifest:
    """:func:`latentrec.evaluation.evaluate` of a dataset that was made with ``--task rating``.

    Of the configuration's metrics only the split, the names, the resampling and the margin are read; the
    baselines are added before the models.

    Raises:
        UserError: a name that a baseline has, or a model of another kind.
    """
    task = RatingTask(data)
    examples = chosen_examples(task, config.split, max_users=config.max_users, seed=config.seed)
    scores = score_baselines(task, examples, seed=config.seed, split=config.split)
    taken = [score.name for score in scores]
    infos: dict[str, ModelInfo] = {}
    inputs = {"dataset": data.fingerprint}
    scored, runs = named_runs(models, champion)
    overlap = champion_overlap(champion, Catalogue.from_dataset(data))
    if champion is not None and (overlap is None or overlap >= MIN_OVERLAP):
        scored[champion.label] = champion.directory
    for name, directory in scored.items():
        if name in taken:
            raise UserError(
                f"a model is called {name!r}, which is a baseline's name; choose another",
                code="evaluation.reserved_name",
            )
        info, manifest = read_model(directory)
        infos[name] = info
        inputs[f"model:{name}"] = manifest.fingerprint
        scores.append(score_language_model(name, directory, task, examples, batch_size=config.batch_size))
    challenger = named(config.challenger, "challenger", list(runs), default=list(runs)[-1])
    known = {champion.label: read_model(champion.directory)[0]} if champion else {}
    timestamps = task.timestamps_of([example.row for example in examples])
    trained_on = leaks(infos | known, data, config.split, timestamps)
    floor = strongest_trivial(scores)
    bootstrap = ClusterBootstrap(
        np.array([example.user_id for example in examples]), n_resamples=config.n_resamples, seed=config.seed
    )
    evaluation = RatingEvaluation(
        config=config,
        dataset=data,
        examples=examples,
        scores=scores,
        infos=infos,
        directories=scored,
        table={score.name: score.metrics(bootstrap) for score in scores},
        comparisons=_comparisons(
            scores, bootstrap, floor, champion if champion and champion.label in scored else None
        ),
        gate=_gate(config, scores, examples, runs[challenger], taken, champion, overlap, trained_on),
        champion=champion.label if champion and champion.label in scored else None,
        floor=floor,
        warnings=leak_warnings(trained_on),
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
    log_table(metric_logger, evaluation.table)
    return writer.manifest


def _comparisons(
    scores: list[RatingScores], bootstrap: ClusterBootstrap, baseline: str, champion: Champion | None
) -> dict[str, list[dict[str, Any]]]:
    """Absolute error of every model minus that of the baseline, the champion: below 0 is better."""
    by_name = {score.name: score for score in scores}
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
    runs: list[str],
    baselines: Collection[str],
    champion: Champion | None,
    overlap: float | None,
    trained_on: Mapping[str, np.ndarray],
) -> GateDecision:
    unparsable = {score.name: score.errors.unparsable for score in scores}
    return decide_for(
        config,
        metric=METRIC,
        users=np.array([example.user_id for example in examples]),
        values={score.name: -score.errors.absolute for score in scores},
        runs=runs,
        baselines=[name for name in baselines if config.floor == "strongest" or name in TRIVIAL],
        trivial=TRIVIAL,
        champion=champion,
        overlap=overlap,
        unscorable=unparsable.get(champion.label) if champion else None,
        trained_on=trained_on,
        readable_share=min(1.0 - float(unparsable[run].mean()) for run in runs),
    )


def _write(evaluation: RatingEvaluation, writer: ArtifactWriter) -> None:
    truth = np.array([example.rating for example in evaluation.examples])
    tables = {score.name: confusion(score.predicted, truth).tolist() for score in evaluation.scores}
    comparison = {
        "models": [score.name for score in evaluation.scores],
        "baseline": evaluation.floor,
        "champion": evaluation.champion,
        "warnings": evaluation.warnings,
        **evaluation.comparisons,
    }
    write_figures(writer.path, evaluation.table, evaluation.gate, comparison=comparison, confusion=tables)
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
    data = evaluation.dataset
    users = pa.array([example.user_id for example in examples], pa.int32())
    table = pa.table(
        {
            "user_id": users,
            "user_key": data.users["user_key"].combine_chunks().take(users),
            "target_key": pa.array([data.item_keys[example.target] for example in examples], pa.string()),
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
