"""Tables of the study, as Markdown: parts of ``docs/results.md`` and of
``docs/research/latent-controls.md``."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.controls.attribution import attribution_table
from benchmarks.controls.confirmation import confirmation_table
from benchmarks.controls.formats import METRICS, NAMES, NOT_RUN, mean_figure, or_dash, relative, signed
from benchmarks.controls.lares_tables import lares_table
from benchmarks.controls.records import ROOT, read_record, seeds_of
from benchmarks.controls.statistics import compare_trials
from benchmarks.controls.trials import IDEAS, OBJECTIVES, RATES, TRIALS, TUNED_ON, tuning_name
from benchmarks.controls.worker import best_rate

PAGE = ROOT / "docs" / "research" / "latent-controls.md"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


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
    base = mean_figure(dataset, "idea-pause-for-comparison", "ndcg_at_10")
    for trial in sorted(IDEAS, key=lambda one: -mean_figure(dataset, one.name, "ndcg_at_10")):
        seeds = seeds_of(dataset, trial.name)
        if not seeds:
            continue
        own = mean_figure(dataset, trial.name, "ndcg_at_10")
        other = mean_figure(dataset, trial.name, "ndcg_at_10_shuffled")
        share = mean_figure(dataset, trial.name, "latent_user_share", part="training_metrics")
        rows.append(
            f"| {trial.label} | {len(seeds)} | {own:.4f} | {or_dash(other, '.4f')} | "
            f"{or_dash(own - other, '+.4f')} | {own - base:+.4f} | {or_dash(share, '.2%')} |"
        )
    if not rows:
        return NOT_RUN + "\n"
    head = (
        "| idea | seeds | NDCG@10 | with another user's latent | shuffled-latent gap | over the pause "
        "token | "
        "power that varies over users |\n"
    )
    return head + "|---" * 7 + "|\n" + "\n".join(rows) + "\n"


PARTS: dict[str, Callable[[], str]] = {
    "What the gain is due to": attribution_table,
    "Confirmation on untouched users": confirmation_table,
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
