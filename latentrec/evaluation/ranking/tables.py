"""Tables of an evaluation: metrics with intervals, paired comparisons, slices. All from per-sample values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from latentrec.catalog import Catalogue
from latentrec.data import Samples
from latentrec.evaluation.ranking.scoring import K_MAX, METRICS, ModelScores
from latentrec.metrics import ClusterBootstrap, Interval, coverage_at_k, holm

COMPARED = ("ndcg_at_10", "hr_at_10")
ACCURACY = tuple(METRICS) + tuple(f"item_{name}" for name in METRICS)


def metric_table(
    models: list[ModelScores], catalogue: Catalogue, bootstrap: ClusterBootstrap
) -> dict[str, dict[str, Interval]]:
    """Every metric of every model with its 95 % interval: ``{model: {metric: Interval}}``.

    Title metrics have the plain name (the papers' protocol), item metrics the prefix ``item_``. Coverage is
    a property of all lists together; it has no interval over users and repeats its value in ``low, high``.
    """
    repeat, unscorable = f"repeat_share_at_{K_MAX}", "unscorable_share"
    names = [*ACCURACY, repeat, unscorable]
    columns = [
        np.column_stack([*(model.values(name) for name in ACCURACY), model.repeat_share, model.unscorable])
        for model in models
    ]
    intervals = bootstrap.intervals(np.concatenate(columns, axis=1))
    table = {}
    for index, model in enumerate(models):
        rows = intervals[index * len(names) : (index + 1) * len(names)]
        table[model.name] = dict(zip(names, rows, strict=True))
        coverage = coverage_at_k(model.ranked, catalogue.n_items, K_MAX)
        table[model.name][f"coverage_at_{K_MAX}"] = Interval(coverage, coverage, coverage)
    return table


def compare_all(models: list[ModelScores], bootstrap: ClusterBootstrap) -> list[dict[str, Any]]:
    """Every pair of models on :data:`COMPARED`: paired interval, permutation test, Holm over the whole table.

    Each row is ``second`` minus ``first``, where ``first`` stands earlier in ``models``.
    """
    pairs = [(a, b) for i, a in enumerate(models) for b in models[i + 1 :]]
    # Enough permutations that the smallest possible p-value survives Holm's correction.
    n_permutations = max(bootstrap.n_resamples, 50 * len(pairs) * len(COMPARED))
    rows: list[dict[str, Any]] = []
    for metric in COMPARED:
        values = {model.name: model.values(metric) for model in models}
        draws = bootstrap.resampled_means(np.column_stack([values[model.name] for model in models]))
        column = {model.name: index for index, model in enumerate(models)}
        for first, second in pairs:
            difference = values[second.name] - values[first.name]
            spread = draws[:, column[second.name]] - draws[:, column[first.name]]
            low, high = np.percentile(spread, [2.5, 97.5])
            rows.append(
                {
                    "first": first.name,
                    "second": second.name,
                    "metric": metric,
                    "difference": float(difference.mean()),
                    "low": float(low),
                    "high": float(high),
                    "p_value": bootstrap.permutation_p_value(difference, n_permutations),
                }
            )
    for row, adjusted in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
        row["p_holm"] = float(adjusted)
    return rows


def against(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The comparisons with ``name``, turned so that each says: the other model minus ``name``."""
    turned = []
    for row in rows:
        if row["first"] == name:
            turned.append({**row, "model": row["second"], "reference": name})
        elif row["second"] == name:
            flipped = {"difference": -row["difference"], "low": -row["high"], "high": -row["low"]}
            turned.append({**row, **flipped, "model": row["first"], "reference": name})
    return [{k: v for k, v in row.items() if k not in ("first", "second")} for row in turned]


def slices_of(samples: Samples, catalogue: Catalogue) -> dict[str, dict[str, np.ndarray]]:
    """Groups of samples to look at apart: ``{dimension: {group: bool (S,)}}``.

    Popular, mid and long-tail targets: items sorted by training interactions, cut where the running sum
    passes one third and two thirds of all interactions; items that training never saw stand apart.
    """
    counts = catalogue.train_counts
    order = catalogue.popularity_order
    before = np.empty(catalogue.n_items)
    before[order] = np.cumsum(counts[order]) - counts[order]
    third = np.minimum(before // max(counts.sum() / 3, 1e-9), 2).astype(int)
    third[counts == 0] = 3
    popularity = third[samples.targets]

    lengths = np.diff(samples.history_offsets)
    owner = np.repeat(np.arange(len(samples)), lengths)
    is_target = samples.history_items == samples.targets[owner]
    repeats = np.bincount(owner, weights=is_target, minlength=len(samples)) > 0
    distinct = np.array([len(np.unique(history)) for history in samples.histories()], int)
    with_repeats = distinct < lengths
    return {
        "target popularity": {
            "popular (top third of purchases)": popularity == 0,
            "mid": popularity == 1,
            "long tail": popularity == 2,
            "unseen in training": popularity == 3,
        },
        "history length": {
            "1–3 items": lengths <= 3,
            "4–9 items": (lengths > 3) & (lengths < 10),
            "10 or more": lengths >= 10,
        },
        "target": {"bought before": repeats, "discovery": ~repeats},
        "user": {"history has repeats": with_repeats, "no repeats": ~with_repeats},
    }


def slice_table(
    models: list[ModelScores], samples: Samples, catalogue: Catalogue, config: Any, metric: str = "ndcg_at_10"
) -> list[dict[str, Any]]:
    """One row for each slice and model: ``dimension, group, n, model, value, low, high`` of ``metric``."""
    rows = []
    for dimension, groups in slices_of(samples, catalogue).items():
        for group, chosen in groups.items():
            if not chosen.any():
                continue
            bootstrap = ClusterBootstrap(
                samples.user_ids[chosen], n_resamples=min(config.n_resamples, 1000), seed=config.seed
            )
            columns = np.column_stack([model.values(metric)[chosen] for model in models])
            for model, interval in zip(models, bootstrap.intervals(columns), strict=True):
                rows.append(
                    {
                        "dimension": dimension,
                        "group": group,
                        "n": int(chosen.sum()),
                        "model": model.name,
                        "metric": metric,
                        **asdict(interval),
                    }
                )
    return rows
