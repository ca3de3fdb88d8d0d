"""``latentrec run-summary``: what happened in a pipeline run, from the steps' status files."""

from __future__ import annotations

import argparse
from pathlib import Path

from latentrec.core import UserError
from latentrec.steps.run_summary import render_summary
from latentrec.steps.status import read_step_statuses
from latentrec.steps.verdict import decide
from latentrec.storage import check_output_file, is_local, join, store_for


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument(
        "--run",
        required=True,
        metavar="DIR",
        help="folder of the run's status files, e.g. runs/status/latentr3-…; with 'latest' as the last "
        "component, the newest run",
    )
    parser.add_argument("--output", metavar="FILE", help="also write the summary to this file")


def run(namespace: argparse.Namespace) -> None:
    """Print the summary."""
    if namespace.output and is_local(namespace.output):
        namespace.output = str(check_output_file(namespace.output, _is_summary))
    root, _, run_id = namespace.run.rstrip("/").rpartition("/")
    root = root or "."
    if run_id == "latest":
        run_id = _latest(root)
    statuses = read_step_statuses(root, run_id)
    if not statuses:
        raise UserError(
            f"--run {join(root, run_id)}: no step has written a status there", code="run.not_found"
        )
    text = render_summary(run_id, statuses, decide(None, statuses, ()))
    if namespace.output:
        store_for(namespace.output).write_bytes(namespace.output, text.encode())
    print(text)


def _is_summary(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(6) == b"# Run "


def _latest(root: str) -> str:
    if is_local(root):
        folders = [path for path in Path(root).glob("*") if path.is_dir()]
        if folders:
            return max(folders, key=lambda path: path.stat().st_mtime).name
    else:
        found = list(store_for(root).list(root.rstrip("/") + "/"))
        if found:
            newest = max(found, key=lambda info: info.updated)
            return newest.uri[len(root.rstrip("/")) + 1 :].split("/")[0]
    raise UserError(f"--run {root}/latest: there is no run", code="run.not_found")
