"""Validation curves of the text models as one small SVG a dataset."""

from __future__ import annotations

import os

from benchmarks.results.plan import CELLS
from benchmarks.results.records import RECORDS, Results

SHOWN = {
    "bigrec": "#0072B2",
    "latentr3-sft": "#D55E00",
    "last-hidden": "#009E73",
    "bigrec-wide": "#CC79A7",
    "latentr3": "#E69F00",
    "ratt-exact": "#56B4E9",
}


def write_curves(dataset: str, results: dict[str, Results]) -> str:
    """Draw validation loss over steps, one line a seed; the Markdown that shows it, empty without curves."""
    os.environ.setdefault("MPLCONFIGDIR", "/tmp/matplotlib")
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "latentrec"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.2), constrained_layout=True)
    drawn = False
    for cell, color in SHOWN.items():
        for index, record in enumerate(results[cell].records if cell in results else []):
            curve = record.get("curve") or []
            axis = axes[1 if "grpo" in record["command"].split()[:1] else 0]
            steps, losses = [entry["step"] for entry in curve], [entry["loss"] for entry in curve]
            label = CELLS[cell].label if index == 0 else None
            axis.plot(steps, losses, color=color, label=label, linewidth=1.2, marker=".", markersize=3)
            drawn |= bool(curve)
    for axis, title in zip(axes, ("Stage 1", "Stage 2"), strict=True):
        axis.set(title=title, xlabel="optimizer step", ylabel="validation loss")
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=7)
    if drawn:
        figure.savefig(RECORDS / dataset / "curves.svg", metadata={"Date": None})
    pyplot.close(figure)
    return f"### Training\n\n![validation loss](results/{dataset}/curves.svg)\n" if drawn else ""
