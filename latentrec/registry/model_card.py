"""The model card: what the model is for, what made it, how good it is, where it fails, what it costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentrec.core.redact import redact
from latentrec.core.text import markdown_code
from latentrec.data.data_prep_config import AFTER_FILTERS
from latentrec.decoding import DecodingOptions
from latentrec.evaluation.gate_decision import GateDecision
from latentrec.evaluation.ranking.roles import ALONE
from latentrec.evaluation.report.gate_facts import gate_facts
from latentrec.models import ModelInfo
from latentrec.storage import Manifest

MAX_DESCRIPTION = 4900
"""MLflow keeps a version's description in 5,000 characters; the whole card is a file beside the model."""
SHORTENED = "\n\n*Shortened; the whole card is `artifacts/card.md` of this version.*\n"

_METRICS = (
    ("hr_at_5", "HR@5"),
    ("hr_at_10", "HR@10"),
    ("ndcg_at_5", "NDCG@5"),
    ("ndcg_at_10", "NDCG@10"),
    ("item_hr_at_10", "item HR@10"),
    ("mae", "MAE"),
    ("rmse", "RMSE"),
    ("unparsable_rate", "unparsable"),
)
_RANKING_USE = (
    "Ranks the catalogue's items for one user after a history of item keys (oldest first). Meant for "
    "recommendations to people who have bought or rated before; without a known history it answers with "
    "popularity and says so (`fallback`)."
)
_RATING_USE = (
    "Predicts the rating (1 to 5) that a user would give to a target item, with its reasoning as text. The "
    "reasoning is generated: it is no explanation to be relied on."
)


def model_card(
    *,
    name: str,
    info: ModelInfo,
    gate: GateDecision,
    evaluation: Path,
    lineage: Mapping[str, str],
    dataset: Manifest | None,
    options: DecodingOptions,
) -> str:
    """Write the card as Markdown.

    Args:
        name: registered name.
        info: of the model directory.
        gate: the verdict.
        evaluation: evaluation directory (metrics, slices, costs).
        lineage: the version's tags.
        dataset: manifest of the dataset, where it was given.
        options: how the model was evaluated, and so how it is served.
    """
    metrics = _read(evaluation / "metrics.json")
    comparison = _read(evaluation / "comparison.json")
    rating = info.system in ("reczero", "recone")
    parts = [
        f"# {name}",
        f"**Promotion gate:** {gate.reason}",
        "## Gate\nAll figures are over the same samples.\n\n" + _table(("what", "value"), gate_facts(gate)),
        f"## Intended use\n{_RATING_USE if rating else _RANKING_USE}",
        "## Results on the test split\n" + _results(metrics, gate.challenger_name),
        "## Slices\n" + _slices(comparison.get("slices"), gate.challenger_name),
        "## Cost\n" + _cost(_read(evaluation / "costs.json"), gate.challenger_name),
        *([] if rating else ["## Serving\n" + _serving(options, info)]),
        "## Data\n" + _data(info, dataset),
        "## Limits\n" + _limits(info, gate),
        "## Lineage\n" + _table(("what", "value"), [(key, f"`{value}`") for key, value in lineage.items()]),
        "## Training\n" + f"System `{info.system}`, stage `{info.stage}`.\n\n```json\n"
        f"{json.dumps(info.config, indent=1, sort_keys=True)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def as_description(card: str) -> str:
    """The card within MLflow's limit: whole sections from the top, and a word on where the rest is."""
    if len(card) <= MAX_DESCRIPTION:
        return card
    kept = ""
    for number, part in enumerate(card.split("\n\n## ")):
        part = part if number == 0 else f"\n\n## {part}"
        if len(kept) + len(part) + len(SHORTENED) > MAX_DESCRIPTION:
            break
        kept += part
    return (kept or card[: MAX_DESCRIPTION - len(SHORTENED)]) + SHORTENED


def _results(metrics: Mapping[str, Any], challenger: str) -> str:
    shown = [(key, label) for key, label in _METRICS if any(key in row for row in metrics.values())]
    order = [challenger, *(model for model in metrics if model != challenger)]
    rows = [
        (
            f"**{model}**" if model == challenger else model,
            *(_interval(metrics[model].get(key)) for key, _ in shown),
        )
        for model in order
        if model in metrics
    ]
    return _table(("model", *(label for _, label in shown)), rows) + "\n\n95 % bootstrap intervals."


def _slices(slices: Any, challenger: str) -> str:
    """Rows ``dimension, group, n, model, metric, value, low, high`` of the evaluation; the challenger's."""
    rows = [
        (f"{entry['dimension']}: {entry['group']}", str(entry["n"]), entry["metric"], _interval(entry))
        for entry in slices or []
        if entry["model"] == challenger
    ]
    return _table(("slice", "samples", "metric", "value"), rows) if rows else "Not measured."


def _cost(costs: Mapping[str, Any], challenger: str) -> str:
    """Cost of the model as it is served, and of its language model alone where it is a mixture."""
    if challenger not in costs:
        return "Not measured."
    lines = [_cost_line("One request", costs[challenger])]
    if challenger + ALONE in costs:
        lines.append(_cost_line("Without the assistant (α = 1)", costs[challenger + ALONE]))
    return "\n\n".join(lines)


def _cost_line(what: str, cost: Mapping[str, Any]) -> str:
    return (
        f"{what}: p50 {cost['latency_ms_p50']:.1f} ms, p99 {cost['latency_ms_p99']:.1f} ms; in batches "
        f"{cost['users_per_second']:,.0f} users a second, on the machine that evaluated."
    )


def _serving(options: DecodingOptions, info: ModelInfo) -> str:
    how = f"Decoding: {options}. " if info.system == "latentr3" else ""
    own = "left out of" if options.exclude_history else "allowed in"
    return f"As it was evaluated. {how}Users' own items are {own} the lists unless a request says otherwise."


def _data(info: ModelInfo, dataset: Manifest | None) -> str:
    lines = [f"Dataset `{info.dataset_fingerprint[:16]}`."]
    if dataset is not None:
        kept = {key: value for key, value in dataset.counts.items() if key not in AFTER_FILTERS}
        counts = ", ".join(f"{key} {value:,}" for key, value in kept.items() if isinstance(value, int))
        lines.append(f"Counts: {counts}." if counts else "")
        window = dataset.extra.get("window")
        lines.append(f"Window: {json.dumps(window)}." if window else "")
        sources = dataset.extra.get("source") or []
        names = [str(entry.get("uri", "?")) for entry in sources if isinstance(entry, dict)]
        if names:
            lines.append(
                "Sources: "
                + ", ".join(markdown_code(redact(entry).rsplit("/", 1)[-1]) for entry in names)
                + "."
            )
    return " ".join(line for line in lines if line)


def _limits(info: ModelInfo, gate: GateDecision) -> str:
    lines = [
        "- Trained on past purchases of one category: it repeats what was popular and knows no stock, "
        "price or suitability.",
        "- Scores are comparable within one list only.",
        *(f"- {note}" for note in info.notes),
    ]
    if not gate.comparable:
        lines.append("- The evaluation could not decide on a promotion; see the gate.")
    return "\n".join(lines)


def _interval(cell: Any) -> str:
    if not isinstance(cell, dict) or "value" not in cell:
        return "–"
    if "low" not in cell:
        return f"{cell['value']:.4f}"
    return f"{cell['value']:.4f} [{cell['low']:.4f}, {cell['high']:.4f}]"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
