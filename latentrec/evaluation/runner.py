"""The evaluation step: score every model on the same samples, compare, decide on promotion, report."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from latentrec.catalog import MIN_OVERLAP, Catalogue
from latentrec.core import UserError
from latentrec.data import Dataset, Samples, of_users_at_most
from latentrec.decoding import MIXED, DecodingOptions, load_recommender
from latentrec.evaluation.evaluate_config import Champion, EvaluateConfig
from latentrec.evaluation.gate_decision import GateDecision
from latentrec.evaluation.gate_inputs import champion_overlap, decide_for
from latentrec.evaluation.leakage import leak_warnings, leaks
from latentrec.evaluation.ranking.candidates import Excluded, leave_out, owned_items, sampled_candidates
from latentrec.evaluation.ranking.cost import Cost, measure_cost
from latentrec.evaluation.ranking.mixture import AlphaChoice, choose_alpha
from latentrec.evaluation.ranking.other_latents import LatentGap, measure_gap, reads_latents
from latentrec.evaluation.ranking.result import Evaluation
from latentrec.evaluation.ranking.roles import ALONE, Roles, assign_roles, named_runs
from latentrec.evaluation.ranking.scoring import ModelScores, score_model
from latentrec.evaluation.ranking.tables import compare_all, metric_table, slice_table
from latentrec.evaluation.report.evaluation_files import log_table, write_evaluation
from latentrec.metrics import ClusterBootstrap, Interval
from latentrec.models import Recommender, read_model
from latentrec.models.popularity import Popularity
from latentrec.storage import ArtifactWriter, Manifest, check_output
from latentrec.training.common.metric_logger import NO_METRICS, MetricLogger

_logger = logging.getLogger(__name__)


def evaluate(
    config: EvaluateConfig,
    *,
    dataset: str | Path,
    models: Mapping[str, str | Path | Sequence[str | Path]],
    output: str | Path,
    champion: Champion | None = None,
    metric_logger: MetricLogger = NO_METRICS,
) -> Manifest:
    """Score models on a split and write an evaluation directory.

    Args:
        config: settings.
        dataset: a dataset directory; one of the rating task is evaluated by
            :func:`latentrec.evaluation.rating.evaluate_ratings.evaluate_ratings`.
        models: name → model directory, in the order of the tables, or several directories: training runs of
            one recipe, of which the first is the one to register. Popularity is added where absent.
        output: directory to make.
        champion: who has the alias now; scored on the same samples with today's catalogue, decoded as it is
            served.
        metric_logger: receives ``<model>/<metric>`` of every model, once.

    Raises:
        UserError: no models, a name that cannot be a file's, an empty split, a name that config asks for
            and that is not among the models, or a model that does not rank items.
    """
    check_output(output, kind="evaluation", inputs=[dataset, *named_runs(models)[0].values()])
    data = Dataset(dataset)
    if data.manifest.config.get("task") == "rating":
        from latentrec.evaluation.rating.evaluate_ratings import evaluate_ratings

        return evaluate_ratings(config, data, models, output, champion, metric_logger)
    roles = assign_roles(models, config, champion)
    catalogue = Catalogue.from_dataset(data)
    samples = _chosen_samples(data, config)
    overlap = champion_overlap(champion, catalogue)
    scoring = _Scoring(config, data, catalogue, samples)
    _score_models(scoring, roles, None if overlap is not None and overlap < MIN_OVERLAP else champion)

    infos = dict(roles.infos)
    if champion is not None:
        infos[champion.label] = read_model(champion.directory)[0]
    trained_on = leaks(infos, data, config.split, samples.timestamps, roles.helpers())
    bootstrap = ClusterBootstrap(samples.user_ids, n_resamples=config.n_resamples, seed=config.seed)
    table = metric_table(scoring.scores, catalogue, bootstrap, samples, data)
    _add_costs(table, scoring.costs)
    for name, gap in scoring.latent_gaps.items():
        table[name][f"other_latent_{gap.metric}"] = gap.other
        table[name][f"own_latent_gap_{gap.metric}"] = gap.gap
    evaluation = Evaluation(
        config=config,
        dataset=data,
        catalogue=catalogue,
        samples=samples,
        models=scoring.scores,
        infos=infos,
        table=table,
        comparisons=compare_all(scoring.scores, bootstrap),
        slices=slice_table(scoring.scores, samples, catalogue, config),
        costs=scoring.costs,
        gate=_gate(config, scoring.scores, samples, roles, champion, overlap, trained_on),
        baseline=roles.baseline,
        champion=champion.label if champion and champion.label in table else None,
        served_as=scoring.served_as,
        alphas=scoring.alphas,
        assistant=roles.assistant,
        warnings=[*leak_warnings(trained_on), *scoring.warnings],
    )
    inputs = {"dataset": data.fingerprint}
    inputs |= {f"model:{name}": manifest.fingerprint for name, manifest in roles.manifests.items()}
    timed = ("report.html", "report.md", "metrics.json", "costs.json")
    writer = ArtifactWriter(output, "evaluation", config, inputs, unhashed=timed)
    with writer:
        write_evaluation(evaluation, writer)
    log_table(metric_logger, table)
    return writer.manifest


@dataclass
class _Scoring:
    """Scores and costs of the models so far."""

    config: EvaluateConfig
    data: Dataset
    catalogue: Catalogue
    samples: Samples
    scores: list[ModelScores] = field(default_factory=list)
    costs: dict[str, Cost] = field(default_factory=dict)
    served_as: dict[str, DecodingOptions] = field(default_factory=dict)
    alphas: dict[str, AlphaChoice] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    latent_gaps: dict[str, LatentGap] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.owned = owned_items(self.data, self.samples)

    def excluded(self, exclude_history: bool) -> Excluded | None:
        """What lists must not hold."""
        config = self.config
        if config.sampled_negatives:
            return sampled_candidates(
                self.samples, self.owned, self.catalogue, config.sampled_negatives, config.seed
            )
        return leave_out(self.owned) if exclude_history else None

    def add(self, recommender: Recommender, options: DecodingOptions) -> None:
        """Score one model, and measure what it costs."""
        config, excluded = self.config, self.excluded(options.exclude_history)
        result = score_model(
            recommender, self.samples, self.catalogue, batch_size=config.batch_size, excluded=excluded
        )
        if config.other_latent_samples and not config.sampled_negatives and reads_latents(recommender):
            gap = measure_gap(
                recommender,
                result,
                self.samples,
                self.catalogue,
                metric=config.metric,
                limit=config.other_latent_samples,
                seed=config.seed,
                n_resamples=config.n_resamples,
                excluded=excluded,
            )
            self.latent_gaps[recommender.name] = gap
            result.notes.append(str(gap))
            if gap.gap.low <= 0:
                self.warnings.append(f"{recommender.name}: {gap}; a gain of its latents is not reasoning")
                _logger.warning("%s", self.warnings[-1])
        self.scores.append(result)
        self.served_as[recommender.name] = options
        if config.cost_samples:
            self.costs[recommender.name] = measure_cost(
                recommender,
                self.samples,
                n_requests=config.cost_samples,
                seconds_in_batches=result.seconds,
                excluded=excluded,
                seed=config.seed,
            )


def _score_models(scoring: _Scoring, roles: Roles, champion: Champion | None) -> None:
    """Score popularity, the models in their order, the challenger's language model alone, the champion."""
    config, catalogue = scoring.config, scoring.catalogue
    plain = config.decoding_options(1.0)
    if roles.popularity not in roles.directories:
        scoring.add(Popularity(catalogue.train_counts, name=roles.popularity), plain)
    titled = [name for name, info in roles.infos.items() if info.system == "latentr3"]
    if config.decoding in MIXED and titled and roles.assistant is None and config.alpha is None:
        scoring.warnings.append(
            "No sasrec model is among the models, so the title models rank alone (alpha 1)."
        )
        _logger.warning("%s", scoring.warnings[-1])
    for name, directory in roles.directories.items():
        mixed = name in titled and roles.assistant is not None and config.alpha != 1.0
        if not mixed:
            scoring.add(load_recommender(directory, catalogue, plain, name=name), plain)
            continue
        assert roles.assistant is not None
        start = config.decoding_options(0.5 if config.alpha is None else config.alpha)
        assistant_dir = roles.directories[roles.assistant]
        recommender: Any = load_recommender(
            directory, catalogue, start, name=name, assistant_dir=assistant_dir
        )
        chosen = AlphaChoice(start.alpha)
        if config.alpha is None:
            chosen = choose_alpha(
                recommender,
                scoring.data,
                catalogue,
                metric=config.metric,
                n_samples=config.alpha_samples,
                exclude_history=config.exclude_history,
                batch_size=config.batch_size,
                seed=config.seed,
            )
        scoring.alphas[name] = chosen
        scoring.add(recommender, config.decoding_options(chosen.alpha))
        if name == roles.challenger and chosen.alpha < 1.0:
            recommender.alpha, recommender.name = 1.0, name + ALONE
            scoring.add(recommender, plain)
    if champion is not None:
        options = champion.served or plain
        scoring.add(
            load_recommender(
                champion.directory,
                catalogue,
                options,
                name=champion.label,
                assistant_dir=champion.assistant_dir,
            ),
            options,
        )


def _chosen_samples(data: Dataset, config: EvaluateConfig) -> Samples:
    samples = data.split(config.split)
    chosen = of_users_at_most(samples.user_ids, config.max_users, config.seed)
    samples = samples.subset(np.flatnonzero(chosen))
    if len(samples) == 0:
        raise UserError(
            f"{data.directory}: the {config.split} split has no samples to evaluate on",
            code="evaluation.no_samples",
        )
    return samples


def _gate(
    config: EvaluateConfig,
    scores: list[ModelScores],
    samples: Samples,
    roles: Roles,
    champion: Champion | None,
    overlap: float | None,
    trained_on: Mapping[str, np.ndarray],
) -> GateDecision:
    unscorable = {model.name: model.unscorable for model in scores}
    sampled = (
        f"targets were ranked among {config.sampled_negatives} sampled items only; evaluate with "
        "--sampled-negatives 0"
    )
    return decide_for(
        config,
        metric=config.metric,
        users=samples.user_ids,
        values={model.name: model.values(config.metric) for model in scores},
        runs=roles.runs[roles.challenger],
        baselines=roles.baselines,
        trivial=(roles.popularity,),
        champion=champion,
        overlap=overlap,
        unscorable=unscorable.get(champion.label) if champion else None,
        trained_on=trained_on,
        not_for_promotion=sampled if config.sampled_negatives else "",
    )


def _add_costs(table: dict[str, dict[str, Interval]], costs: Mapping[str, Cost]) -> None:
    for name, cost in costs.items():
        for metric in ("latency_ms_p50", "latency_ms_p99", "users_per_second"):
            value = getattr(cost, metric)
            table[name][metric] = Interval(value, value, value)
