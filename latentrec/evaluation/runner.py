"""The evaluation step: score every model on the same samples, compare, decide on promotion, report."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from latentrec.catalog import Catalogue
from latentrec.core import UserError
from latentrec.data import Dataset, Samples
from latentrec.decoding import ASSISTED, load_recommender
from latentrec.decoding.options import DecodingOptions
from latentrec.evaluation.evaluate_config import Champion, EvaluateConfig
from latentrec.evaluation.gate import GateDecision, decide
from latentrec.evaluation.ranking.cost import Cost, measure_cost
from latentrec.evaluation.ranking.result import Evaluation, file_name
from latentrec.evaluation.ranking.scoring import ModelScores, score_model, shown_lengths
from latentrec.evaluation.ranking.tables import against, compare_all, metric_table, slice_table
from latentrec.evaluation.report.ranking_report import write_reports
from latentrec.metrics import ClusterBootstrap, Interval
from latentrec.models import ModelInfo, Recommender, read_model
from latentrec.models.popularity import Popularity
from latentrec.storage import ArtifactWriter, Manifest
from latentrec.training.common.metric_logger import MetricLogger, NullMetricLogger

FLOOR_NAME = "popularity"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


def evaluate(
    config: EvaluateConfig,
    *,
    dataset: str | Path,
    models: Mapping[str, str | Path],
    output: str | Path,
    champion: Champion | None = None,
    metric_logger: MetricLogger | None = None,
) -> Manifest:
    """Judge models on a split and write an evaluation directory (contracts.md).

    Args:
        config: settings.
        dataset: a dataset directory; one of the rating task is handed to
            :func:`latentrec.evaluation.rating.evaluate_ratings.evaluate_ratings`.
        models: name → model directory, in the order of the tables; popularity is added where absent.
        output: directory to make.
        champion: who holds the alias now; scored on the same samples with today's catalogue, decoded as it
            is served.
        metric_logger: receives ``<model>/<metric>`` of every model, once.

    Raises:
        UserError: no models, a name that cannot be a file's, an empty split, a name that config asks for
            and that is not among the models, or a model that does not rank items.
    """
    metric_logger = metric_logger or NullMetricLogger()
    models = _checked_names(models, champion)
    data = Dataset(dataset)
    if data.manifest.config.get("task") == "rating":
        from latentrec.evaluation.rating.evaluate_ratings import evaluate_ratings

        return evaluate_ratings(
            config,
            dataset=dataset,
            models=models,
            output=output,
            champion=champion,
            metric_logger=metric_logger,
        )
    catalogue = Catalogue.from_dataset(data)
    samples = _chosen_samples(data, config)
    described = {name: read_model(directory) for name, directory in models.items()}
    infos = {name: info for name, (info, _) in described.items()}
    directories = {name: Path(directory) for name, directory in models.items()}
    challenger = _named(config.challenger, "challenger", list(models), default=list(models)[-1])
    assistant = _assistant(config, infos, directories)
    floor_name = next((name for name, info in infos.items() if info.system == "popularity"), FLOOR_NAME)
    if champion is not None:
        infos[champion.label] = read_model(champion.directory)[0]
        directories[champion.label] = champion.directory

    scores: list[ModelScores] = []
    costs: dict[str, Cost] = {}

    def evaluate_one(recommender: Recommender) -> None:
        result = score_model(
            recommender,
            samples,
            catalogue,
            batch_size=config.batch_size,
            exclude_history=config.exclude_history,
        )
        scores.append(result)
        if config.cost_samples:
            costs[recommender.name] = measure_cost(
                recommender,
                samples,
                n_requests=config.cost_samples,
                seconds_in_batches=result.seconds,
                chain_of_thought_tokens=config.chain_of_thought_tokens,
                seed=config.seed,
            )

    if floor_name not in directories:
        evaluate_one(Popularity(catalogue.train_counts, name=floor_name))
    todays = DecodingOptions(
        beam_width=int(config.beam_width) if config.beam_width.isdigit() else config.beam_width,
        host=config.host,
        assistant_dir=assistant,
        alpha=config.alpha,
    )
    for name, directory in directories.items():
        served = champion.served if champion is not None and name == champion.label else None
        evaluate_one(load_recommender(directory, catalogue, **asdict(replace(served or todays, name=name))))

    bootstrap = ClusterBootstrap(samples.user_ids, n_resamples=config.n_resamples, seed=config.seed)
    table = metric_table(scores, catalogue, bootstrap)
    _add_costs(table, costs)
    comparisons = compare_all(scores, bootstrap)
    baseline = _named(config.baseline, "baseline", list(table), default=_plain_backbone(infos) or floor_name)
    gate = _gate(config, scores, samples, data, infos, challenger, floor_name, champion)
    evaluation = Evaluation(
        config=config,
        dataset=data,
        catalogue=catalogue,
        samples=samples,
        models=scores,
        infos=infos,
        table=table,
        comparisons=comparisons,
        slices=slice_table(scores, samples, catalogue, config),
        costs=costs,
        gate=gate,
        baseline=baseline,
        champion=champion.label if champion else None,
        champion_served=champion.served if champion else None,
    )
    inputs = {"dataset": data.fingerprint}
    inputs |= {f"model:{name}": manifest.fingerprint for name, (_, manifest) in described.items()}
    timed = ("report.html", "report.md", "metrics.json", "costs.json")
    writer = ArtifactWriter(output, "evaluation", config, inputs, unhashed=timed)
    with writer:
        _write(evaluation, writer)
    for name, metrics in table.items():
        metric_logger.log_metrics(
            {f"{name}/{metric}": interval.value for metric, interval in metrics.items()}, 0
        )
    assert writer.manifest is not None
    return writer.manifest


def _write(evaluation: Evaluation, writer: ArtifactWriter) -> None:
    table = {
        name: {metric: asdict(interval) for metric, interval in metrics.items()}
        for name, metrics in evaluation.table.items()
    }
    comparison = {
        "models": [model.name for model in evaluation.models],
        "baseline": evaluation.baseline,
        "champion": evaluation.champion,
        "against_baseline": against(evaluation.comparisons, evaluation.baseline),
        "against_champion": against(evaluation.comparisons, evaluation.champion or ""),
        "pairs": evaluation.comparisons,
        "slices": evaluation.slices,
    }
    costs = {name: asdict(cost) for name, cost in evaluation.costs.items()}
    for name, body in (("metrics.json", table), ("comparison.json", comparison), ("costs.json", costs)):
        (writer.path / name).write_text(json.dumps(body, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    evaluation.gate.write(writer.path / "gate.json")
    for model in evaluation.models:
        path = writer.path / f"predictions_{file_name(model.name)}.parquet"
        _write_predictions(path, model, evaluation.samples, evaluation.catalogue)
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
    }


def _write_predictions(path: Path, model: ModelScores, samples: Samples, catalogue: Catalogue) -> None:
    kept = np.arange(model.ranked.shape[1]) < shown_lengths(model, catalogue.title_ids)[:, None]
    offsets = pa.array(np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int32))
    table = pa.table(
        {
            "user_id": pa.array(samples.user_ids),
            "target": pa.array(samples.targets),
            "ranked": pa.ListArray.from_arrays(offsets, pa.array(model.ranked[kept])),
            "scores": pa.ListArray.from_arrays(offsets, pa.array(model.scores[kept])),
        }
    )
    pq.write_table(table, path, compression="zstd")


def _checked_names(models: Mapping[str, str | Path], champion: Champion | None) -> dict[str, str | Path]:
    if not models:
        raise UserError("evaluate needs at least one model: --model NAME=DIR")
    for name in models:
        if not _NAME.fullmatch(name):
            raise UserError(
                f"model name {name!r} cannot be a file's name; use letters, digits, '_', '-', '.' and '+'"
            )
    if champion is not None and champion.label in models:
        raise UserError(f"a model is called {champion.label!r}, which is the champion's name in the tables")
    return dict(models)


def _chosen_samples(data: Dataset, config: EvaluateConfig) -> Samples:
    samples = data.split(config.split)
    if config.max_users is not None:
        users = np.unique(samples.user_ids)
        if len(users) > config.max_users:
            chosen = np.random.default_rng(config.seed).choice(users, config.max_users, replace=False)
            samples = samples.subset(np.flatnonzero(np.isin(samples.user_ids, chosen)))
    if len(samples) == 0:
        raise UserError(f"{data.directory}: the {config.split} split has no samples to judge on")
    return samples


def _named(asked: str | None, role: str, names: list[str], default: str) -> str:
    if asked is not None and asked not in names:
        raise UserError(f"EvaluateConfig.{role} is {asked!r}; the models are: {', '.join(names)}")
    return asked or default


def _assistant(
    config: EvaluateConfig, infos: dict[str, ModelInfo], directories: dict[str, Path]
) -> Path | None:
    if config.host not in ASSISTED:
        return None
    default = next((name for name, info in infos.items() if info.system == "sasrec"), "")
    name = _named(config.assistant, "assistant", list(infos), default=default)
    if not name:
        raise UserError(
            f"the {config.host} host needs an assistant: give a sasrec model with --model, or --assistant "
            "NAME"
        )
    return directories[name]


def _plain_backbone(infos: dict[str, ModelInfo]) -> str | None:
    """The title model that does not reason: N = 0 latent tokens."""
    return next(
        (
            name
            for name, info in infos.items()
            if info.system == "bigrec"
            or (info.system == "latentr3" and info.architecture.get("n_latents") == 0)
        ),
        None,
    )


def _gate(
    config: EvaluateConfig,
    scores: list[ModelScores],
    samples: Samples,
    data: Dataset,
    infos: dict[str, ModelInfo],
    challenger: str,
    floor: str,
    champion: Champion | None,
) -> GateDecision:
    by_name = {model.name: model for model in scores}
    given: dict[str, Any] = {}
    if champion is not None:
        info = infos[champion.label]
        comparable = np.ones(len(samples), bool)
        if info.dataset_fingerprint != data.fingerprint:
            comparable = samples.timestamps > info.train_end
        given = {
            "champion": by_name[champion.label].values(config.metric),
            "champion_name": champion.label,
            "champion_version": champion.version,
            "comparable": comparable,
            "unscorable": by_name[champion.label].unscorable,
        }
    return decide(
        metric=config.metric,
        users=samples.user_ids,
        challenger=by_name[challenger].values(config.metric),
        floor=by_name[floor].values(config.metric),
        challenger_name=challenger,
        floor_name=floor,
        margin=config.promotion_margin,
        n_resamples=config.n_resamples,
        seed=config.seed,
        **given,
    )


def _add_costs(table: dict[str, dict[str, Interval]], costs: dict[str, Cost]) -> None:
    for name, cost in costs.items():
        for metric in ("latency_ms_p50", "latency_ms_p99", "users_per_second"):
            value = getattr(cost, metric)
            table[name][metric] = Interval(value, value, value)
