"""``latentrec storage``: what trainers keep under a checkpoint root, and what of it may go."""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime

from latentrec.storage import input_fingerprint, list_inputs, store_for
from latentrec.storage.checkpoint_garbage import (
    Work,
    find_checkpoint_garbage,
    remove_checkpoint_garbage,
    scan,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``list``, ``gc`` and ``fingerprint``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="{list,gc,fingerprint}")
    root_help = "the --checkpoint-root of the trainers: a folder, gs://, s3:// or minio:// location"
    show = actions.add_parser("list", help="show every piece of work with its checkpoints")
    show.add_argument("root", help=root_help)
    collect = actions.add_parser("gc", help="show, and with --delete remove, what no index names")
    collect.add_argument("root", help=root_help)
    collect.add_argument(
        "--older-than-hours",
        type=float,
        default=24.0,
        help="keep an unreferenced file of the latest attempt for so long, it may be in a save (default: 24)",
    )
    collect.add_argument(
        "--unused-days",
        type=float,
        default=None,
        help="also remove all of a work that was not written to for so many days (default: keep every work)",
    )
    collect.add_argument(
        "--delete", action="store_true", help="remove; without it nothing is changed (dry run)"
    )
    inputs = actions.add_parser("fingerprint", help="print the fingerprint of input files and their sizes")
    inputs.add_argument("uri", nargs="+", help="files, folders that end in '/', or patterns")


def run(namespace: argparse.Namespace) -> None:
    """Do what was asked and print a table."""
    {"list": _list, "gc": _collect, "fingerprint": _fingerprint}[namespace.action](namespace)


def _list(namespace: argparse.Namespace) -> None:
    works = scan(namespace.root)
    for work in works:
        print(_work_line(work))
        for entry in work.checkpoints:
            size = sum(file["bytes"] for file in entry["files"].values())
            mark = "  best" if entry["id"] == work.best else ""
            print(f"    step {entry['step']:>10,}  {_when(entry['created'])}  {_size(size):>10}{mark}")
    print(f"{len(works)} pieces of work, {_size(sum(work.size for work in works))}")


def _collect(namespace: argparse.Namespace) -> None:
    days = namespace.unused_days
    garbage = find_checkpoint_garbage(
        scan(namespace.root),
        older_than_s=namespace.older_than_hours * 3600,
        unused_for_s=None if days is None else days * 86_400,
    )
    for piece in garbage:
        print(f"{_size(piece.info.size):>10}  {piece.info.uri}  ({piece.reason})")
    total = sum(piece.info.size for piece in garbage)
    if namespace.delete:
        print(f"removed {_size(remove_checkpoint_garbage(garbage))} in {len(garbage)} files")
    else:
        print(f"dry run: {len(garbage)} files, {_size(total)} would be removed; add --delete to remove them")


def _fingerprint(namespace: argparse.Namespace) -> None:
    for name in [name for uri in namespace.uri for name in list_inputs(uri)]:
        info = store_for(name).stat(name)
        assert info is not None
        print(f"{_size(info.size):>10}  {name}  version {info.version}")
    print(input_fingerprint(namespace.uri))


def _work_line(work: Work) -> str:
    unreferenced = sum(info.size for info in work.unreferenced)
    rest = f", {_size(unreferenced)} unreferenced" if unreferenced else ""
    age = (time.time() - work.updated) / 86_400
    return f"{work.uri}  ({_size(work.size)}{rest}; {work.token} attempts, last written {age:.1f} days ago)"


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _size(size: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    raise AssertionError
