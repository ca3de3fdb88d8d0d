"""Tables and plots of ``docs/estimator.md``, between two markers; the words around them are by hand."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from benchmarks.estimator.directions import ESTIMATORS
from benchmarks.estimator.trials import TRIALS
from benchmarks.results.records import ROOT

FIGURES = ROOT / "docs" / "estimator"
PAGE = ROOT / "docs" / "estimator.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5C00", "#444444", "#B00020")


def write_page() -> Path:
    """Put today's figures between the markers; returns the page."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else f"# Stage 2\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    parts = [part for part in (_groups(), _directions(), _trials()) if part]
    PAGE.write_text(f"{before}{BEGIN}\n" + "\n".join(parts) + f"{END}{after}", encoding="utf-8")
    return PAGE


def _groups() -> str:
    files = sorted((FIGURES / "groups").glob("*.json"))
    rows = [row for path in files for row in json.loads(path.read_text(encoding="utf-8"))]
    if not rows:
        return ""
    lines = [
        "### Groups of sampled titles\n",
        "| model | titles | prompts | mean p of the true title | G | groups with a gradient "
        "| cosine with the expectation |",
        "|---" * 7 + "|",
    ]
    lines += [
        f"| {row['model']} | {row['titles']:,} | {row['prompts']} | {row['mean_probability']:.4f} | "
        f"{row['group']} | {row['informative']:.1%} | {row['cosine']:+.2f} |"
        for row in rows
    ]
    return "\n".join([*lines, ""])


def _directions() -> str:
    files = sorted((FIGURES / "directions").glob("*.json"))
    rows = [row for path in files for row in json.loads(path.read_text(encoding="utf-8"))]
    if not rows:
        return ""
    order = list(ESTIMATORS)
    rows.sort(key=lambda row: (row["parameters"], row["model"], row["sigma"], order.index(row["estimator"])))
    lines = [
        "### Directions\n",
        "| model (d, parameters) | σ / rms | estimator | cos with SFT | cos with ∇J | slope of J "
        "| two draws agree | copies that beat the clean one | ΣA² in 1 % of prompts |",
        "|---" * 9 + "|",
    ]
    for row in rows:
        lines.append(
            f"| {row['model']} ({row['hidden_size']}, {row['parameters'] / 1e6:.2f} M) | "
            f"{row['sigma']:g} | {row['estimator']} | {row['with_sft']:+.2f} | {row['with_reward']:+.2f} | "
            f"{row['slope']:+.2f} | {row['agreement']:+.2f} | {row['beats_clean']:.0%} | "
            f"{row['concentration']:.0%} |"
        )
    _draw_directions(rows)
    return "\n".join([*lines, "", "![cosines](estimator/cosines.svg)", ""])


def _trials() -> str:
    files = sorted((FIGURES / "trials").glob("*.json"))
    records = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    starts = {record["on"]: record["ndcg_at_10"] for record in records if "trial" not in record}
    records = [record for record in records if "trial" in record]
    if not records:
        return ""
    records.sort(key=lambda record: (record["on"], list(TRIALS).index(record["trial"])))
    lines = [
        "### Trials\n",
        "| on | trial | steps | validation loss, start → last (best) | NDCG@10, start → last "
        "| cos with SFT, mean | processor s |",
        "|---" * 7 + "|",
    ]
    for record in records:
        losses = record["series"]["valid/loss"]
        cosines = [value for _, value in record["series"].get("train/cosine_with_sft", [])]
        mean = f"{sum(cosines) / len(cosines):+.2f}" if cosines else "–"
        lines.append(
            f"| {record['on']} | {record['trial']} | {losses[-1][0]:.0f} | {losses[0][1]:.4f} → "
            f"{losses[-1][1]:.4f} ({min(value for _, value in losses):.4f}) | {starts[record['on']]:.4f} → "
            f"{record['ndcg_at_10']:.4f} | {mean} | {record['processor_seconds']:.0f} |"
        )
    labels = list(dict.fromkeys(record["on"] for record in records))
    for label in labels:
        _draw_trials(label, [record for record in records if record["on"] == label])
    plots = [f"![trials on {label}](estimator/trials-{label}.svg)\n" for label in labels]
    return "\n".join([*lines, "", *plots])


def _draw_directions(rows: list[dict[str, Any]]) -> None:
    """A panel for each model, over σ: cosine with the SFT gradient above, with the reward's own below."""
    pyplot = _pyplot()
    models = list(dict.fromkeys(row["model"] for row in rows))
    fields = (("with_sft", "the SFT gradient"), ("with_reward", "∇J"))
    figure, axes = pyplot.subplots(
        2,
        len(models),
        figsize=(1 + 3.2 * len(models), 6),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    sigmas = sorted({row["sigma"] for row in rows})
    for (field, title), line in zip(fields, axes, strict=True):
        for axis, model in zip(line, models, strict=True):
            for color, estimator in zip(COLORS, ESTIMATORS, strict=False):
                own = [row for row in rows if row["model"] == model and row["estimator"] == estimator]
                x, y = [row["sigma"] for row in own], [row[field] for row in own]
                axis.plot(x, y, color=color, marker="o", linewidth=1.4, markersize=4, label=estimator)
            axis.axhline(0, color="black", linewidth=0.8)
            axis.set(title=f"{model}: cosine with {title}", xscale="log", ylim=(-1.05, 1.05))
            axis.title.set_fontsize(9)
            axis.set_xticks(sigmas, [f"{sigma:g}" for sigma in sigmas], minor=False)
            axis.minorticks_off()
            axis.grid(alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("σ / rms of the latent")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    figure.savefig(FIGURES / "cosines.svg", metadata={"Date": None})
    pyplot.close(figure)


def _draw_trials(label: str, records: list[dict[str, Any]]) -> None:
    """Validation loss on a scale of both signs and all sizes, and the cosine, smoothed over evaluations."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 5), layout="constrained")
    names = ("valid/loss", "train/cosine_with_sft")
    titles = ("validation loss − start", "cosine with the SFT gradient, mean so far")
    for axis, name, title in zip(axes, names, titles, strict=True):
        for number, record in enumerate(records):
            series = record["series"].get(name, [])
            if not series:
                continue
            steps, values = zip(*series, strict=True)
            if name == "valid/loss":
                shown = [value - values[0] for value in values]
            else:
                shown = [sum(values[: n + 1]) / (n + 1) for n in range(len(values))]
            style = "-" if number < len(COLORS) else "--"
            color = COLORS[number % len(COLORS)]
            axis.plot(steps, shown, style, color=color, linewidth=1.4, label=record["trial"])
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
    axes[0].set_yscale("symlog", linthresh=1e-3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(FIGURES / f"trials-{label}.svg", metadata={"Date": None})
    pyplot.close(figure)


def _pyplot() -> Any:
    os.environ.setdefault("MPLCONFIGDIR", "/tmp/matplotlib")
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "latentrec"
    from matplotlib import pyplot

    return pyplot
