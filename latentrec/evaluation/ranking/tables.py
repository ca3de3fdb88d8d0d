"""Tables of an evaluation: metrics with intervals, paired comparisons, slices. All from per-sample values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from latentrec.catalog import Catalogue
from latentrec.data import Dataset, Samples
from latentrec.evaluation.ranking.scoring import K_MAX, METRICS, ModelScores
from latentrec.metrics import ClusterBootstrap, Interval, coverage_at_k, holm
from latentrec.metrics import beyond_accuracy as beyond

COMPARED = ("ndcg_at_10", "hr_at_10")
ACCURACY = tuple(METRICS) + tuple(f"item_{name}" for name in METRICS)


def metric_table(
    models: list[ModelScores],
    catalogue: Catalogue,
    bootstrap: ClusterBootstrap,
    samples: Samples,
    dataset: Dataset,
) -> dict[str, dict[str, Interval]]:
    """Every metric of every model with its 95 % interval: ``{model: {metric: Interval}}``.

    Title metrics have the plain name (the papers' protocol), item metrics the prefix ``item_``. Coverage and
    Gini are properties of all lists together; they have no interval over users and repeat their value in
    ``low, high``. A metric that no sample has (diversity without brands or categories) is absent.
    """
    kinds = item_groups(dataset)
    columns: dict[tuple[str, str], np.ndarray] = {}
    for model in models:
        for name in ACCURACY:
            columns[model.name, name] = model.values(name)
        columns[model.name, f"repeat_share_at_{K_MAX}"] = model.repeat_share
        columns[model.name, "unscorable_share"] = model.unscorable
        for name, values in beyond_accuracy(model, samples, catalogue, kinds).items():
            columns[model.name, name] = values
    table: dict[str, dict[str, Interval]] = {model.name: {} for model in models}
    for (model_name, name), interval in _intervals(columns, bootstrap, samples.user_ids).items():
        table[model_name][name] = interval
    for model in models:
        for name, value in (
            (f"coverage_at_{K_MAX}", coverage_at_k(model.ranked, catalogue.n_items, K_MAX)),
            (f"gini_at_{K_MAX}", beyond.gini_at_k(model.ranked, catalogue.n_items, K_MAX)),
        ):
            table[model.name][name] = Interval(value, value, value)
    return table


def _intervals(
    columns: dict[tuple[str, str], np.ndarray], bootstrap: ClusterBootstrap, users: np.ndarray
) -> dict[tuple[str, str], Interval]:
    """Intervals of all columns over the same resamples; a column with gaps over the samples that have it."""
    known = {key: np.isfinite(np.asarray(values, np.float64)) for key, values in columns.items()}
    whole = [key for key in columns if known[key].all()]
    matrix = np.column_stack([columns[key] for key in whole])
    found = dict(zip(whole, bootstrap.intervals(matrix), strict=True))
    for key in columns:
        if key in found or not known[key].any():
            continue
        partial = ClusterBootstrap(users[known[key]], n_resamples=bootstrap.n_resamples, seed=bootstrap.seed)
        found[key] = partial.intervals(np.asarray(columns[key])[known[key]][:, None])[0]
    return found


def beyond_accuracy(
    model: ModelScores, samples: Samples, catalogue: Catalogue, kinds: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Per-sample values of what lists are like besides right or wrong, by metric name.

    ``kinds`` is the category or brand of each item (:func:`item_groups`); without it diversity is left out
    and calibration is of popularity only.
    """
    histories, counts, k = samples.histories(), catalogue.train_counts, K_MAX
    thirds = popularity_thirds(catalogue)
    found = {
        f"novelty_at_{k}": beyond.novelty_at_k(model.ranked, counts, k),
        f"popularity_lift_at_{k}": beyond.popularity_lift_at_k(model.ranked, histories, counts, k),
        f"long_tail_share_at_{k}": beyond.long_tail_share_at_k(model.ranked, thirds >= 2, k),
        f"popularity_miscalibration_at_{k}": beyond.miscalibration_at_k(model.ranked, histories, thirds, k),
    }
    if kinds is not None:
        found |= {
            f"diversity_at_{k}": beyond.diversity_at_k(model.ranked, kinds, k),
            f"miscalibration_at_{k}": beyond.miscalibration_at_k(model.ranked, histories, kinds, k),
        }
    return found


def item_groups(dataset: Dataset) -> np.ndarray | None:
    """int (n_items,): the category of each item, else its brand; −1 where unknown.

    ``None`` where fewer than half of the items have one, or all have the same.
    """
    for column in ("categories", "brand"):
        if column not in dataset.items.column_names:
            continue
        texts = [_second_level(text or "") for text in dataset.items[column].to_pylist()]
        names = {text: number for number, text in enumerate(sorted({text for text in texts if text}))}
        groups = np.array([names.get(text, -1) for text in texts])
        if len(names) > 1 and (groups >= 0).mean() >= 0.5:
            return groups
    return None


def _second_level(path: str) -> str:
    """Second level of a category path, since all items of a shop share the first.

    ``Office Products > Paper > Notebooks`` gives ``Paper``.
    """
    levels = [level.strip() for level in path.split(" > ") if level.strip()]
    return levels[1] if len(levels) > 1 else levels[0] if levels else ""


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
    """Groups of samples that are reported separately: ``{dimension: {group: bool (S,)}}``.

    Popular, mid and long-tail targets: items sorted by training interactions, cut where the running sum
    passes one third and two thirds of all interactions; items that training never saw stand apart.
    """
    thirds = popularity_thirds(catalogue)
    popularity = thirds[samples.targets]

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
        "user taste": _tastes(samples, thirds == 0),
    }


def popularity_thirds(catalogue: Catalogue) -> np.ndarray:
    """int (n_items,): 0 popular, 1 mid, 2 long tail (a third of the training purchases each), 3 unsold."""
    counts = catalogue.train_counts
    order = catalogue.popularity_order
    before = np.empty(catalogue.n_items)
    before[order] = np.cumsum(counts[order]) - counts[order]
    third = np.minimum(before // max(counts.sum() / 3, 1e-9), 2).astype(int)
    third[counts == 0] = 3
    return third


def _tastes(samples: Samples, is_popular: np.ndarray) -> dict[str, np.ndarray]:
    """Users by the share of popular items in their history (Abdollahpouri et al. 2019)."""
    lengths = np.diff(samples.history_offsets)
    owner = np.repeat(np.arange(len(samples)), lengths)
    popular = np.bincount(owner, weights=is_popular[samples.history_items], minlength=len(samples))
    share = popular / np.maximum(lengths, 1)
    return {
        "mostly popular items": share > 2 / 3,
        "mixed": (share >= 1 / 3) & (share <= 2 / 3),
        "mostly niche items": share < 1 / 3,
    }


def lift_by_taste(models: list[ModelScores], samples: Samples, catalogue: Catalogue) -> list[dict[str, Any]]:
    """Mean popularity lift of each model's lists for users of each taste: who is pushed to the popular."""
    tastes = _tastes(samples, popularity_thirds(catalogue) == 0)
    rows = []
    for group, chosen in tastes.items():
        for model in models if chosen.any() else ():
            lift = beyond_accuracy(model, samples, catalogue, None)[f"popularity_lift_at_{K_MAX}"][chosen]
            lift = lift[np.isfinite(lift)]
            if len(lift):
                rows.append(
                    {"group": group, "n": int(chosen.sum()), "model": model.name, "lift": float(lift.mean())}
                )
    return rows


def slice_table(
    models: list[ModelScores], samples: Samples, catalogue: Catalogue, config: Any
) -> list[dict[str, Any]]:
    """One row for each slice and model: ``dimension, group, n, model, value, low, high`` of NDCG@10."""
    metric = "ndcg_at_10"
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
