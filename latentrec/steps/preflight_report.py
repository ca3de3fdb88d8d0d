"""What preflight has decided for a run, as a page for those who have only Kubeflow's form."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

from latentrec.core.redact import redact
from latentrec.core.settings import CHECKPOINT_ROOT_VARIABLE
from latentrec.core.text import markdown_code, markdown_text
from latentrec.steps.preflight import PreflightResult
from latentrec.storage import store_for

_logger = logging.getLogger(__name__)


def lifecycle_warnings(artifact: str) -> list[str]:
    """Warnings of rules by which a bucket deletes what a later run relies on.

    Args:
        artifact: location of any artifact of the run, in KFP's pipeline root.
    """
    found = []
    for what, root, harm in (
        (
            "the pipeline root",
            artifact,
            "KFP's cache goes on serving artifacts that are gone, and the step after such a hit fails",
        ),
        (
            CHECKPOINT_ROOT_VARIABLE,
            os.environ.get(CHECKPOINT_ROOT_VARIABLE, ""),
            "a training that takes longer, or resumes later, loses its checkpoints",
        ),
    ):
        for rule in (store_for(root).deletion_rules(root) or []) if root else []:
            found.append(f"{what} ({root}): a lifecycle rule of the bucket deletes {rule}; {harm}")
    for warning in found:
        _logger.warning("%s", warning, extra={"label": "preflight"})
    return found


def preflight_markdown(system: str, checked: PreflightResult, warnings: Iterable[str] = ()) -> str:
    """Sizes and nodes of a run's steps, its model's name, and every setting that is not left alone.

    Args:
        system: name of the pipeline.
        checked: what preflight found.
        warnings: of what is wrong with the installation without stopping the run.
    """
    facts: dict[str, Any] = {
        "registered as": checked.details.get("model_name"),
        "metadata found beside the reviews": checked.details.get("metadata"),
        "begins at": checked.start_from,
        "stage 2": checked.stage_2.replace("_", " "),
        "nothing is trained unless the data differ from": checked.known_content[:12],
        "backbone": checked.details.get("backbone"),
        "KFP": checked.details.get("kfp_backend"),
        "accelerators of a step that can use one": checked.pool.one_gpu,
        "nodes of these steps": checked.pool.node_selector,
    }
    facts |= {f"pods of {kind}": f"{size.cpu} CPU, {size.memory}" for kind, size in checked.sizes.items()}
    lines = [f"# {markdown_text(system)}: every check passed"]
    lines += [f"**Warning:** {markdown_text(redact(warning))}" for warning in warnings]
    lines.append(_table(("", ""), [(name, str(value)) for name, value in facts.items() if value]))
    rows = [(step, name, str(value)) for step, one in checked.configs.items() for name, value in one.items()]
    if rows:
        lines += ["## What is set, by step", _table(("step", "field", "value"), rows)]
    return "\n\n".join(lines) + "\n"


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [columns, ("---",) * len(columns)]
    lines += [(*map(markdown_text, row[:-1]), markdown_code(redact(row[-1]))) for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def describe(parameters: Mapping[str, Any], checked: PreflightResult, artifact: Any) -> None:
    """Write the page into KFP's output, and keep its warnings for the run summary.

    Args:
        parameters: the pipeline's, ``system`` among them.
        checked: what preflight found.
        artifact: KFP's Markdown output.
    """
    warnings = lifecycle_warnings(artifact.uri or artifact.path)
    if warnings:
        checked.details["warnings"] = warnings
    text = preflight_markdown(str(parameters["system"]), checked, warnings)
    with open(artifact.path, "w", encoding="utf-8") as stream:
        stream.write(text)
