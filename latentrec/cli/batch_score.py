"""``latentrec batch-score``: recommendations for many users to one Parquet file, here or in a bucket."""

from __future__ import annotations

import argparse

from latentrec.core import UserError
from latentrec.serving.request_schemas import MAX_K
from latentrec.steps.batch_scoring import FILE_NAME, batch_score
from latentrec.steps.score_shards import Shard, merge_shards
from latentrec.steps.step_run import step_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("--model", metavar="URI", help="models:/NAME@ALIAS or models:/NAME/VERSION")
    parser.add_argument(
        "--users",
        metavar="FILE|DIR",
        help="Parquet or JSON lines with user_key and history, or a dataset directory (all its users)",
    )
    parser.add_argument(
        "--output", required=True, metavar="URI", help="a .parquet location, or a folder for one"
    )
    parser.add_argument("--k", type=int, default=10, help="length of each list (default: 10)")
    parser.add_argument(
        "--exclude-history",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="leave out what the user has (default: as the model was evaluated)",
    )
    parser.add_argument("--batch-size", type=int, default=256, help="users ranked together (default: 256)")
    several = parser.add_mutually_exclusive_group()
    several.add_argument(
        "--shard", metavar="I/N", default="1/1", help="score part I of N, to a file of its own in --output"
    )
    several.add_argument(
        "--merge", type=int, metavar="N", help="make one file of the N shards in --output; scores nothing"
    )


def run(namespace: argparse.Namespace) -> None:
    """Score and say where the file is."""
    if not 1 <= namespace.k <= MAX_K:
        raise UserError(f"--k is {namespace.k}, expected 1 to {MAX_K}", code="config.bad_value")
    if namespace.batch_size < 1:
        raise UserError(
            f"--batch-size is {namespace.batch_size}, expected at least 1", code="config.bad_value"
        )
    if namespace.merge is not None:
        _merge(namespace)
        return
    for name in ("model", "users"):
        if not getattr(namespace, name):
            raise UserError(
                f"--{name} is missing; without it only --merge N works", code="config.missing_value"
            )
    shard = Shard.parse(namespace.shard)
    with step_run("batch-score") as step:
        result = batch_score(
            model=namespace.model,
            users=namespace.users,
            output=namespace.output,
            k=namespace.k,
            exclude_history=namespace.exclude_history,
            batch_size=namespace.batch_size,
            shard=shard,
        )
        step.status.details |= {"users": result.users, "fallbacks": result.fallbacks, "output": result.uri}
    print(
        f"{result.uri}: {result.users:,} users, {result.fallbacks:,} of them without a known history "
        f"(popularity), by {result.model.name} version {result.model.version}"
    )


def _merge(namespace: argparse.Namespace) -> None:
    if not 2 <= namespace.merge <= 999_999:
        raise UserError(
            f"--merge is {namespace.merge}, expected the number of shards, at least 2",
            code="config.bad_value",
        )
    place, users = merge_shards(namespace.output, namespace.merge, FILE_NAME)
    print(f"{place}: {users:,} users from {namespace.merge} shards")
