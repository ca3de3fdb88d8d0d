"""LARES as published: SPT over SASRec, RPT over SPT, by depth, and what RPT's reward had to say."""

from __future__ import annotations

import numpy as np

from benchmarks.controls.formats import NAMES, NOT_RUN, mean_figure, or_dash, relative, signed
from benchmarks.controls.records import seeds_of
from benchmarks.controls.statistics import compare_trials
from benchmarks.controls.trials import LARES
from benchmarks.controls.worker import DEPTHS

SIGNAL_FORMS = (".4f", ".4f", ".1%", ".2f")


def lares_table(datasets: tuple[str, ...] = ("office", "cds")) -> str:
    """LARES as published: SPT over SASRec, RPT over SPT and over as many more epochs of SPT."""
    pairs = (
        ("spt", "sasrec", "SPT over SASRec"),
        ("rpt", "spt", "RPT over SPT"),
        ("rpt", "rpt-spt", "RPT over as much more SPT"),
        ("rpt", "sasrec", "SPT + RPT over SASRec"),
        ("spt-ours", "spt", "SPT with our defaults over the published settings"),
    )
    rows = []
    for name in datasets:
        for first, second, meaning in pairs:
            one = compare_trials(name, first, second, "NDCG@10")
            if one is not None:
                rows.append(
                    f"| {NAMES[name]} | {meaning} | {len(one.by_seed)} | {one.second:.4f} → "
                    f"{one.first:.4f} | "
                    f"{signed(one)} | {relative(one)} |"
                )
    if not rows:
        return NOT_RUN + "\n"
    head = (
        "| dataset | contrast | seeds | NDCG@10 | difference [95 %] | relative [95 %] |\n"
        + "|---" * 6
        + "|\n"
    )
    parts = (_depth_table(datasets), _signal_table(datasets), _rpt_search())
    return head + "\n".join(rows) + "\n\n" + "\n".join(part for part in parts if part)


def _depth_table(datasets: tuple[str, ...]) -> str:
    rows = []
    for name in datasets:
        for trial in ("spt", "rpt"):
            if seeds_of(name, trial):
                values = [mean_figure(name, trial, f"ndcg_at_10_depth_{depth}") for depth in DEPTHS]
                seconds = [mean_figure(name, trial, f"seconds_depth_{depth}") for depth in DEPTHS]
                rows.append(
                    f"| {NAMES[name]}, {trial} | "
                    + " | ".join(f"{v:.4f} ({s:.2f} s)" for v, s in zip(values, seconds, strict=True))
                    + " |"
                )
    if not rows:
        return ""
    head = (
        "NDCG@10 and seconds to rank the test split, by number of recurrent steps at test time (trained "
        "at 4):"
        "\n\n"
    )
    return (
        head
        + "| model | "
        + " | ".join(str(depth) for depth in DEPTHS)
        + " |\n"
        + "|---" * (1 + len(DEPTHS))
        + "|\n"
        + "\n".join(rows)
        + "\n"
    )


def _signal_table(datasets: tuple[str, ...]) -> str:
    """What RPT's reward had to say, in the mean over training."""
    rows = []
    for name in datasets:
        for trial in (one for one in LARES if one.command[0] == "rpt"):
            figures = [
                mean_figure(name, trial.name, figure, part="training_means")
                for figure in ("reward", "reward_std_within_group", "groups_with_signal", "entropy")
            ]
            if not all(np.isnan(figures)):
                shown = (or_dash(value, form) for value, form in zip(figures, SIGNAL_FORMS, strict=True))
                rows.append(f"| {NAMES[name]}, {trial.label} | " + " | ".join(shown) + " |")
    if not rows:
        return ""
    return (
        "RPT in training, means over its steps:\n\n| model | reward | its spread within a group | groups "
        "with a signal | entropy of the policy, nats |\n|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def _rpt_search(dataset: str = "office") -> str:
    rows = []
    for trial in LARES:
        if trial.split == "valid" and (seeds := seeds_of(dataset, trial.name)):
            figure = mean_figure(dataset, trial.name, "ndcg_at_10")
            rows.append(f"| {trial.label} | {len(seeds)} | {figure:.4f} |")
    if not rows:
        return ""
    return (
        f"RPT's settings on validation ({NAMES[dataset]}):\n\n| setting | seeds | NDCG@10 |\n|---|---|---|\n"
        + ("\n".join(rows) + "\n")
    )
