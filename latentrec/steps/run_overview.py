"""What the pipeline's own MLflow run shows: the results of every model, the verdict, the registered version.

Evaluation and registration are never served from KFP's cache, so that every pipeline run has it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from latentrec.core.text import markdown_text
from latentrec.evaluation.gate_decision import GateDecision
from latentrec.evaluation.report.console_table import RATINGS_SHOWN, SHOWN, group_name
from latentrec.steps.links import kfp_tags
from latentrec.steps.step_run import StepRun

if TYPE_CHECKING:
    from latentrec.registry.model_registry import RegisteredVersion

NOTE = "mlflow.note.content"
"""MLflow shows it above everything else, as Markdown."""


def show_evaluation(run: StepRun, evaluation: Path, registered: RegisteredVersion | None = None) -> None:
    """Log an evaluation's figures and its story on the pipeline's run.

    Args:
        run: the step that reports.
        evaluation: finished evaluation directory.
        registered: the version made of the challenger, once there is one.
    """
    gate = GateDecision.read(evaluation / "gate.json")
    table = json.loads((evaluation / "metrics.json").read_text(encoding="utf-8"))
    run.log_results(results(table, gate.challenger_name))
    run.set_tags({NOTE: note(table, gate, registered)}, parent=True)


def results(table: dict[str, dict[str, dict[str, float]]], challenger: str) -> dict[str, float]:
    """Every figure of the challenger by its name, and the shown ones of each other model as ``model/name``.

    So the column ``ndcg_at_10`` compares runs, and the group ``sasrec`` a run with its baseline.
    """
    found = {name: cell["value"] for name, cell in table[challenger].items()}
    for model, cells in table.items():
        shown = {name for name, _ in _columns(cells)} if model != challenger else set()
        group = group_name(model)
        found |= {f"{group}/{name}": cell["value"] for name, cell in cells.items() if name in shown}
    return found


def note(
    table: dict[str, dict[str, dict[str, float]]], gate: GateDecision, registered: RegisteredVersion | None
) -> str:
    """The run in Markdown: link to KFP, verdict, table, registered version."""
    columns = _columns(table[gate.challenger_name])
    word = "promote" if gate.promote else "do not promote"
    lines = [kfp_tags().get(NOTE, ""), f"Gate: **{word}**. {markdown_text(gate.reason)}"]
    if registered is not None:
        page = f"#/models/{registered.name}/versions/{registered.version}"
        aliases = ", ".join(f"`@{alias}`" for alias in sorted(registered.aliases)) or "no alias"
        lines.append(f"Registered: [{registered.name} version {registered.version}]({page}), {aliases}")
    rows = [f"| model | {' | '.join(label for _, label in columns)} |", "|---" * (len(columns) + 1) + "|"]
    for model, cells in table.items():
        shown = (f"{cells[name]['value']:.4f}" for name, _ in columns)
        mark = "**" if model == gate.challenger_name else ""
        rows.append(f"| {mark}{markdown_text(model)}{mark} | {' | '.join(shown)} |")
    lines += ["\n".join(rows), "Reports with intervals: `evaluate.html` and `data_prep.html` in Artifacts."]
    return "\n\n".join(line for line in lines if line)


def _columns(cells: dict[str, dict[str, float]]) -> tuple[tuple[str, str], ...]:
    return tuple(column for column in (RATINGS_SHOWN if "mae" in cells else SHOWN) if column[0] in cells)
