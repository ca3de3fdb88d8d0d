"""Tables of the study, as Markdown: parts of ``docs/results.md`` and of
``docs/research/latent-controls.md``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.controls.records import ROOT, read_record, seeds_of
from benchmarks.controls.statistics import Difference, compare_trials, median_gain
from benchmarks.controls.trials import IDEAS, LARES, OBJECTIVES, RATES, TRIALS, TUNED_ON, tuning_name
from benchmarks.controls.worker import DEPTHS, best_rate

PAGE = ROOT / "docs" / "research" / "latent-controls.md"
NAMES = {
    "cds": "CDs",
    "office": "Office",
    "games-small": "Video Games, 4,000 users",
    "games-confirm": "Video Games, 10,000 untouched users",
}
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
NOT_RUN = "*not run yet*"
CONTRASTS = (
    ("ratt-arcsin", "n0", "title_rank", "LatentR³ (SFT, then arcsin) over BIGRec"),
    ("n0-arcsin", "n0", "title_rank", "the objective alone: N = 0, then arcsin, over BIGRec"),
    ("ratt-arcsin", "n0-arcsin", "title_rank", "over N = 0 with the same objective"),
    ("ratt-arcsin", "n0-compute", "title_rank", "over N = 0 at equal compute"),
    ("pause-arcsin", "n0-arcsin", "title_rank", "a pause token over N = 0, both with the objective"),
    ("ratt-arcsin", "pause-arcsin", "title_rank", "over a pause token with the same objective"),
    ("ratt-arcsin", "ratt-arcsin", "title_rank_shuffled", "another user's latent over one's own"),
    ("ratt", "n0", "title_rank", "stage 1 alone: LatentRATT over N = 0"),
    ("ratt", "pause", "title_rank", "stage 1 alone: LatentRATT over a pause token"),
)
"""What is compared: first, second, the first's column, meaning."""
METRICS = ("HR@5", "NDCG@10")
SIGNAL_FORMS = (".4f", ".4f", ".1%", ".2f")


def signed(one: Difference) -> str:
    """Difference and interval."""
    return f"{one.value:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"


def relative(one: Difference) -> str:
    """Relative difference and interval."""
    return f"{one.relative:+.1%} [{one.relative_low:+.1%}, {one.relative_high:+.1%}]"


def attribution_table(datasets: tuple[str, ...] = ("cds", "office")) -> str:
    """The goal: each contrast on each dataset, the median over datasets, and what the gain is due to."""
    rows, medians = [], {}
    for first, second, column, meaning in CONTRASTS:
        for metric in METRICS:
            found = {
                name: one
                for name in datasets
                if (one := compare_trials(name, first, second, metric, first_column=column)) is not None
            }
            for name, one in found.items():
                rows.append(
                    f"| {meaning} | {metric} | {NAMES[name]} | {len(one.by_seed)} | {one.second:.4f} → "
                    f"{one.first:.4f} | {signed(one)} | {relative(one)} |"
                )
            if found:
                middle = median_gain(list(found.values()))
                medians[first, second, column, metric] = middle
                if len(found) > 1:
                    text = f"{middle[0]:+.1%} [{middle[1]:+.1%}, {middle[2]:+.1%}]"
                    rows.append(f"| {meaning} | {metric} | **median of {len(found)}** | | | | **{text}** |")
    if not rows:
        return NOT_RUN + "\n"
    head = (
        "| contrast | metric | dataset | seeds | means | difference [95 %] | relative [95 %] |\n" + "|---" * 7
    )
    return f"{head}|\n" + "\n".join(rows) + f"\n\n{verdict(medians)}\n"


def verdict(medians: dict[tuple[str, str, str, str], tuple[float, float, float]]) -> str:
    """A sentence on what the gain is due to, from the contrasts' medians on NDCG@10."""

    def above(first: str, second: str, column: str = "title_rank") -> bool:
        middle = medians.get((first, second, column, "NDCG@10"))
        return middle is not None and middle[1] > 0

    def below(first: str, second: str, column: str) -> bool:
        middle = medians.get((first, second, column, "NDCG@10"))
        return middle is not None and middle[2] < 0

    if not above("ratt-arcsin", "n0"):
        return "**No gain over BIGRec is shown**: its interval over seeds and users holds zero."
    parts = []
    if above("n0-arcsin", "n0"):
        parts.append("the gain over BIGRec is due to the objective, which N = 0 gains by as well")
    else:
        parts.append("the objective alone is not shown to gain on N = 0")
    over_n0 = above("ratt-arcsin", "n0-arcsin")
    over_compute = above("ratt-arcsin", "n0-compute")
    if over_n0 and over_compute:
        parts.append("latents add to it, also at equal compute")
    elif over_n0:
        parts.append("latents add to it at equal steps, which equal compute does not show")
    else:
        parts.append("that latents add to it is not shown")
    own = below("ratt-arcsin", "ratt-arcsin", "title_rank_shuffled")
    if own and above("ratt-arcsin", "pause-arcsin"):
        parts.append("and what they say about the user matters: it may be called reasoning")
    else:
        parts.append(
            "and it is not due to latent reasoning: one's own latent is not shown to rank better than "
            "another "
            "user's and than a pause token"
        )
    text = "; ".join(parts).replace("not due to latent reasoning", "not to latent reasoning")
    return "**" + text[0].upper() + text[1:] + ".**"


def objective_table(datasets: tuple[str, ...] = ("cds", "office")) -> str:
    """Every objective from both kinds of stage 1, at the learning rate that validation chose for it."""
    rows = []
    for objective, (title, _) in OBJECTIVES.items():
        tried = [
            read_record(name, tuning_name(objective, rate), seed) for name, seed in TUNED_ON for rate in RATES
        ]
        rate = best_rate(objective) if all(tried) else "?"
        for parent in ("n0", "ratt"):
            cells = []
            for name in datasets:
                one = compare_trials(name, f"{parent}-{objective}", parent, "NDCG@10")
                cells.append(
                    NOT_RUN if one is None else f"{one.first:.4f} ({len(one.by_seed)}), {relative(one)}"
                )
            if any(cell != NOT_RUN for cell in cells):
                rows.append(f"| {title} | {rate} | {parent} | " + " | ".join(cells) + " |")
    if not rows:
        return NOT_RUN + "\n"
    head = "| objective | learning rate | stage 1 | " + " | ".join(
        f"{NAMES[name]}: NDCG@10 (seeds), over its stage 1" for name in datasets
    )
    return head + " |\n" + "|---" * (3 + len(datasets)) + "|\n" + "\n".join(rows) + "\n"


def published_table() -> str:
    """RL as published: one epoch, four learning rates, last weights; each against the stage 1 it began at.

    The record ``ratt`` may be another machine's training, which ends with other weights.
    """
    rows = []
    for name in NAMES:
        for metric in METRICS:
            one = compare_trials(name, "rl-published", "rl-published-start", metric)
            if one is None:
                continue
            chosen = [read_record(name, "rl-published", seed) for seed in seeds_of(name, "rl-published")]
            rates = ", ".join(f"{record['config']['learning_rate']:g}" for record in chosen if record)
            rows.append(
                f"| {NAMES[name]} | {metric} | {len(one.by_seed)} | {rates} | {one.second:.4f} | "
                f"{one.first:.4f} | "
                f"{signed(one)} | {relative(one)} |"
            )
    if not rows:
        return NOT_RUN + "\n"
    head = (
        "| dataset | metric | seeds | learning rate chosen, by seed | stage 1 | after RL | difference "
        "[95 %] | "
        "relative [95 %] |\n"
    )
    return head + "|---" * 8 + "|\n" + "\n".join(rows) + "\n\n" + _rates_tried()


def _rates_tried() -> str:
    """Validation NDCG@10 of each learning rate, from the models' notes."""
    lines = []
    for name in NAMES:
        for seed in seeds_of(name, "rl-published"):
            record = read_record(name, "rl-published", seed)
            notes = [note for note in (record or {}).get("notes", []) if note.startswith("learning rate")]
            if notes:
                lines.append(f"* {NAMES[name]}, seed {seed}: " + "; ".join(notes))
    return "Validation, by learning rate:\n\n" + "\n".join(lines) + "\n" if lines else ""


def ideas_table(dataset: str = "cds") -> str:
    """Each idea on validation: NDCG@10, with another user's latent, and the latent's share of power over
    users."""
    rows = []
    base = _mean(dataset, "idea-pause-for-comparison", "ndcg_at_10")
    for trial in sorted(IDEAS, key=lambda one: -_mean(dataset, one.name, "ndcg_at_10")):
        seeds = seeds_of(dataset, trial.name)
        if not seeds:
            continue
        own = _mean(dataset, trial.name, "ndcg_at_10")
        other = _mean(dataset, trial.name, "ndcg_at_10_shuffled")
        share = _mean(dataset, trial.name, "latent_user_share", part="training_metrics")
        rows.append(
            f"| {trial.label} | {len(seeds)} | {own:.4f} | {_or_dash(other, '.4f')} | "
            f"{_or_dash(own - other, '+.4f')} | {own - base:+.4f} | {_or_dash(share, '.2%')} |"
        )
    if not rows:
        return NOT_RUN + "\n"
    head = (
        "| idea | seeds | NDCG@10 | with another user's latent | shuffled-latent gap | over the pause "
        "token | "
        "power that varies over users |\n"
    )
    return head + "|---" * 7 + "|\n" + "\n".join(rows) + "\n"


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
                values = [_mean(name, trial, f"ndcg_at_10_depth_{depth}") for depth in DEPTHS]
                seconds = [_mean(name, trial, f"seconds_depth_{depth}") for depth in DEPTHS]
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
                _mean(name, trial.name, figure, part="training_means")
                for figure in ("reward", "reward_std_within_group", "groups_with_signal", "entropy")
            ]
            if not all(np.isnan(figures)):
                shown = (_or_dash(value, form) for value, form in zip(figures, SIGNAL_FORMS, strict=True))
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
            figure = _mean(dataset, trial.name, "ndcg_at_10")
            rows.append(f"| {trial.label} | {len(seeds)} | {figure:.4f} |")
    if not rows:
        return ""
    return (
        f"RPT's settings on validation ({NAMES[dataset]}):\n\n| setting | seeds | NDCG@10 |\n|---|---|---|\n"
        + ("\n".join(rows) + "\n")
    )


def _mean(dataset: str, trial: str, figure: str, part: str = "figures") -> float:
    found = [read_record(dataset, trial, seed) for seed in seeds_of(dataset, trial)]
    values = [record[part][figure] for record in found if record and figure in record.get(part, {})]
    return float(np.mean(values)) if values else float("nan")


def _or_dash(value: float, form: str) -> str:
    return "–" if np.isnan(value) else format(value, form)


PARTS: dict[str, Callable[[], str]] = {
    "What the gain is due to": attribution_table,
    "Confirmation on untouched users": lambda: attribution_table(("games-confirm",)),
    "Objectives, equally tuned": objective_table,
    "RL as published": published_table,
    "Ideas that should make the latent matter": ideas_table,
    "LARES as published": lares_table,
}


def write_page() -> None:
    """Put the tables between their markers in the research page; the words around them are by hand."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    parts = "\n".join(f"### {title}\n\n{make()}" for title, make in PARTS.items())
    machines = sorted(
        {
            f"{record['machine']}, {record['device']}, torch {record['versions']['torch']}"
            for name in NAMES
            for trial in TRIALS
            for seed in seeds_of(name, trial)
            if (record := read_record(name, trial, seed)) is not None
        }
    )
    where = "".join(f"* {one}\n" for one in machines)
    made = f"\n{parts}\nMade on:\n\n{where}\n" if machines else f"\n{parts}\n"
    PAGE.write_text(before + BEGIN + made + END + after, encoding="utf-8")
