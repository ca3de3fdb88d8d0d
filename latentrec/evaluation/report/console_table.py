"""The results table as plain text, for terminals and logs."""

from __future__ import annotations

import json
from pathlib import Path

RATINGS_SHOWN = (
    ("mae", "MAE"),
    ("rmse", "RMSE"),
    ("unparsable_rate", "unparsable"),
    ("accuracy", "right star"),
)
SHOWN = (("hr_at_5", "HR@5"), ("hr_at_10", "HR@10"), ("ndcg_at_5", "NDCG@5"), ("ndcg_at_10", "NDCG@10"))


def results_table(evaluation: str | Path) -> str:
    """Metrics of an evaluation with 95 % intervals, one line a model: title-level ones, or of ratings."""
    table = json.loads((Path(evaluation) / "metrics.json").read_text(encoding="utf-8"))
    order = json.loads((Path(evaluation) / "comparison.json").read_text(encoding="utf-8"))["models"]
    width = max(len("model"), *(len(name) for name in order))
    columns = RATINGS_SHOWN if "mae" in table[order[0]] else SHOWN
    lines = [f"{'model':<{width}}" + "".join(f"  {label:^22}" for _, label in columns)]
    for name in order:
        cells = (table[name][metric] for metric, _ in columns)
        shown = (f"{cell['value']:.4f} [{cell['low']:.4f},{cell['high']:.4f}]" for cell in cells)
        lines.append(f"{name:<{width}}" + "".join(f"  {cell:>22}" for cell in shown))
    return "\n".join(lines)


def group_name(model: str) -> str:
    """A model's name as it stands in the name of a metric, ``user_item_bias/mae``: MLflow refuses a plus."""
    return model.replace(" + ", "_").replace(" ", "_")
