"""LARES over its depth of thought: quality against steps, spread over initial states, time a step."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from latentrec.catalog import Catalogue
from latentrec.core import UserError
from latentrec.data import Dataset, Samples, sample_at_most
from latentrec.evaluation.ranking.depth_config import DepthConfig
from latentrec.evaluation.report.depth_plot import DepthPoint, depth_plot
from latentrec.metrics import ClusterBootstrap, hit_rate_at_k, ndcg_at_k, rank_of_target
from latentrec.models.sequential import LARES, SequentialRecommender
from latentrec.storage import ArtifactWriter, Manifest, check_output
from latentrec.training.sequential.state import cpu_threads

SPLIT = "valid"
"""A depth is chosen here, and only then is the test split evaluated."""
FACTORS = (0.15, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0)
LATENCY_REPEATS = 20


def depth_study(
    config: DepthConfig, *, dataset: str | Path, model: str | Path, output: str | Path
) -> Manifest:
    """Evaluate a LARES model at several depths; writes ``depth.json``, ``depth.md`` and ``depth.svg``.

    Raises:
        UserError: not a LARES model, or the split is empty.
    """
    check_output(output, kind="depth_study", inputs=[dataset, model])
    data = Dataset(dataset)
    recommender = SequentialRecommender.load(model, Catalogue.from_dataset(data))
    encoder = recommender.encoder
    if not isinstance(encoder, LARES):
        raise UserError(
            f"{model} holds a {recommender.name} model; only lares has a depth", code="model.other_kind"
        )
    samples = data.split(SPLIT)
    if not len(samples):
        raise UserError(
            f"the {SPLIT} split is empty; there is nothing to evaluate", code="evaluation.no_samples"
        )
    samples = samples.subset(sample_at_most(len(samples), config.max_samples, config.seed))
    mean = encoder.depth
    depths = sorted(set(config.depths)) or sorted({max(1, round(factor * mean)) for factor in FACTORS})
    bootstrap = ClusterBootstrap(samples.user_ids, n_resamples=1000, seed=config.seed)
    points = [_evaluate_one(recommender, encoder, samples, depth, config, bootstrap) for depth in depths]
    body = {"mean_steps": mean, "split": SPLIT, "samples": len(samples), "k": config.k}
    with ArtifactWriter(output, "depth_study", config, {"dataset": data.fingerprint}) as artifact:
        text = json.dumps({**body, "points": [asdict(point) for point in points]}, indent=2)
        (artifact.path / "depth.json").write_text(text + "\n", encoding="utf-8")
        (artifact.path / "depth.md").write_text(as_markdown(points, config), encoding="utf-8")
        plot = depth_plot(points, k=config.k, split=SPLIT, mean_steps=mean)
        (artifact.path / "depth.svg").write_text(plot, encoding="utf-8")
    return artifact.manifest


def as_markdown(points: list[DepthPoint], config: DepthConfig) -> str:
    """The points as a table."""
    lines = [
        f"| steps | NDCG@{config.k} ({SPLIT}) | 95 % by user | HR@{config.k} | "
        f"sd over {config.state_seeds} initial states | same first item | ms a user |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {p.depth} | {p.ndcg:.4f} | {p.low:.4f} … {p.high:.4f} | {p.hit_rate:.4f} | {p.spread:.5f} | "
        f"{p.top1_agreement:.1%} | {p.latency_ms:.2f} |"
        for p in points
    ]
    return "\n".join(lines) + "\n"


def _evaluate_one(
    recommender: SequentialRecommender,
    encoder: LARES,
    samples: Samples,
    depth: int,
    config: DepthConfig,
    bootstrap: ClusterBootstrap,
) -> DepthPoint:
    encoder.depth = depth
    ndcg, hits, firsts = [], [], []
    for seed in range(config.state_seeds):
        encoder.state_seed = seed
        ranked = recommender.rank(samples.histories(), config.k).item_ids
        ranks = rank_of_target(ranked, samples.targets)
        ndcg.append(ndcg_at_k(ranks, config.k))
        hits.append(hit_rate_at_k(ranks, config.k))
        firsts.append(ranked[:, 0])
    means = np.mean(ndcg, axis=0)
    resampled = bootstrap.resampled_means(means[:, None])[:, 0]
    low, high = np.percentile(resampled, [2.5, 97.5])
    per_seed = [float(values.mean()) for values in ndcg]
    agreement = np.mean([np.mean(first == firsts[0]) for first in firsts[1:]]) if len(firsts) > 1 else 1.0
    return DepthPoint(
        depth=depth,
        ndcg=float(means.mean()),
        low=float(low),
        high=float(high),
        hit_rate=float(np.mean(hits)),
        spread=statistics.stdev(per_seed) if len(per_seed) > 1 else 0.0,
        top1_agreement=float(agreement),
        latency_ms=_latency_ms(recommender, samples, config.k),
    )


def _latency_ms(recommender: SequentialRecommender, samples: Samples, k: int) -> float:
    """Median milliseconds to rank the catalogue for one user: of the processor on a CPU, else of the wall.

    The processor's seconds do not count the time in which other work has the core.
    """
    on_cpu = recommender.device.type == "cpu"
    clock = time.thread_time if on_cpu else time.perf_counter
    seconds = []
    with cpu_threads(1):
        for index in range(min(LATENCY_REPEATS, len(samples))):
            start = clock()
            recommender.rank([samples.history(index)], k)
            if not on_cpu:
                torch.cuda.synchronize()
            seconds.append(clock() - start)
    return 1000 * statistics.median(seconds)
