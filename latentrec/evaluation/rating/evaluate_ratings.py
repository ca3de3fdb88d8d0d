"""The evaluation step for rating models: MAE and its kin against baselines, comparison, gate, report.

The gate's metric is −MAE. A challenger has to exceed the best constant or bias model, must not be below any
other baseline beyond the interval, and must give answers that can be read. Answers that could not be read are
scored with the user's mean and counted.
"""

from __future__ import annotations

import json
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
from latentrec.evaluation.gate import ChampionScores, GateDecision, decide
from latentrec.evaluation.leakage import leak_warnings, leaks
from latentrec.evaluation.ranking.result import file_name
from latentrec.evaluation.ranking.roles import named_runs
from latentrec.evaluation.rating.rating_scores import (
    TRIVIAL,
    RatingScores,
    chosen_examples,
    score_baselines,
    score_language_model,
    strongest_trivial,
)
from latentrec.evaluation.report.rating_report import RatingEvaluation, write_rating_reports
from latentrec.metrics import ClusterBootstrap
from latentrec.metrics.ratings import confusion
from latentrec.models import ModelInfo, read_model
from latentrec.prompts.rating_examples import RatingExample, RatingTask
from latentrec.storage import ArtifactWriter, Manifest, check_output
from latentrec.training.common.metric_logger import MetricLogger, NullMetricLogger

METRIC = "neg_mae"


def evaluate_ratings(
    config: EvaluateConfig,
    *,
    dataset: str | Path,
    models: Mapping[str, str | Path | Sequence[str | Path]],
    output: str | Path,
    champion: Champion | None = None,
    metric_logger: MetricLogger | None = None,
) -> Manifest:
    """Evaluate rating models on a split and write an evaluation directory.

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
    check_output(output, kind="evaluation", inputs=[dataset, *named_runs(models)[0].values()])
    metric_logger = metric_logger or NullMetricLogger()
    if not models:
        raise UserError("evaluate needs at least one model: --model NAME=DIR", code="evaluation.no_model")
    data = Dataset(dataset)
    task = RatingTask(data)
    examples = chosen_examples(task, config.split, max_users=config.max_users, seed=config.seed)
    scores = score_baselines(task, examples, seed=config.seed, split=config.split)
    taken = [score.name for score in scores]
    infos: dict[str, ModelInfo] = {}
    inputs = {"dataset": data.fingerprint}
    directories, runs = named_runs(models)
    overlap = _overlap(champion, data)
    scored = dict(directories)
    if champion is not None:
        if champion.label in scored:
            raise UserError(
                f"a model is called {champion.label!r}, which is the champion's name in the tables",
                code="evaluation.reserved_name",
            )
        if overlap is None or overlap >= MIN_OVERLAP:
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
    challenger = config.challenger or list(runs)[-1]
    if challenger not in runs:
        raise UserError(
            f"evaluate.challenger is {challenger!r}; the models are: {', '.join(runs)}",
            code="evaluation.unknown_model",
        )
    known = {champion.label: read_model(champion.directory)[0]} if champion else {}
    timestamps = task.timestamps_of([example.row for example in examples])
    trained_on = leaks(infos | known, data, config.split, timestamps)
    floor = config.baseline or strongest_trivial(scores)
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
        raise UserError(
            f"EvaluateConfig.baseline is {baseline!r}; there are: {', '.join(by_name)}",
            code="evaluation.unknown_baseline",
        )
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


def _overlap(champion: Champion | None, data: Dataset) -> float | None:
    """Share of the smaller catalogue that champion and dataset have in common; ``None``: not known."""
    if champion is None or not (champion.directory / "items.parquet").is_file():
        return None
    return Catalogue.from_dataset(data).overlap(Catalogue.read(champion.directory / "items.parquet"))


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
    negated = {score.name: -score.errors.absolute for score in scores}
    readable = {score.name: 1.0 - float(score.errors.unparsable.mean()) for score in scores}
    leaked = [trained_on[run] for run in runs if run in trained_on]
    own = {runs[0]: np.logical_or.reduce(leaked)} if leaked else {}
    holder = None
    if champion is not None:
        by_name = {score.name: score for score in scores}
        scored = by_name.get(champion.label)
        holder = ChampionScores(
            name=champion.label,
            version=champion.version,
            values=negated.get(champion.label),
            overlap=overlap,
            unscorable=scored.errors.unparsable if scored else None,
        )
    return decide(
        metric=METRIC,
        users=np.array([example.user_id for example in examples]),
        challenger=np.stack([negated[run] for run in runs]),
        baselines={
            name: negated[name] for name in baselines if config.floor == "strongest" or name in TRIVIAL
        },
        trivial=TRIVIAL,
        champion=holder,
        trained_on={**trained_on, **own},
        readable_share=min(readable[run] for run in runs),
        min_readable_share=config.min_readable_share,
        floor=config.floor,
        margin=config.promotion_margin,
        challenger_name=runs[0],
        not_for_promotion=(
            ""
            if config.split == "test"
            else f"the {config.split} split has been seen by training or model selection; evaluate on test"
        ),
        n_resamples=config.n_resamples,
        seed=config.seed,
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
        "baseline": evaluation.floor,
        "champion": evaluation.champion,
        "warnings": evaluation.warnings,
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
