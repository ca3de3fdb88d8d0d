"""``latentrec promote``: move an alias by hand, go back to the previous champion, or read the history."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from latentrec.core import UserError
from latentrec.registry.model_registry import Registry, check_model_name
from latentrec.registry.promotion import PromotionEvent, promote, promotion_history, rollback


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("--name", required=True, help="registered model, for example latentr3")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--version", help="version that the alias is to point at")
    what.add_argument(
        "--rollback",
        action="store_true",
        help="give champion back to the champion before; again goes further back",
    )
    what.add_argument("--history", action="store_true", help="print every promotion, refusal and rollback")
    parser.add_argument("--alias", default="champion", help="alias to move (default: champion)")
    parser.add_argument("--reason", default="", help="why; required for a move")


def run(namespace: argparse.Namespace) -> None:
    """Do it and print the event, or the history."""
    check_model_name(namespace.name)
    if namespace.history:
        events = promotion_history(namespace.name)
        for event in events:
            print(_line(event))
        if not events:
            print(f"{namespace.name}: nothing was promoted or refused yet")
        return
    if not namespace.reason.strip():
        raise UserError(
            '--reason "…" is needed; it stays in the registry\'s history', code="config.missing_value"
        )
    if namespace.rollback:
        event = rollback(namespace.name, namespace.reason)
    else:
        event = promote(namespace.name, namespace.version, namespace.reason, alias=namespace.alias)
    print(_line(event))
    aliases = ", ".join(
        f"{alias} → {version}" for alias, version in sorted(Registry().aliases(namespace.name).items())
    )
    print(f"aliases of {namespace.name}: {aliases}")


def _line(event: PromotionEvent) -> str:
    when = datetime.fromtimestamp(event.time, UTC).strftime("%Y-%m-%d %H:%M:%S")
    before = f" (was version {event.replaced})" if event.replaced else ""
    move = f"{event.action:<11} {event.alias} → version {event.version}{before}"
    return f"{event.number:>3}  {when}  {move}, by {event.by}: {event.reason}"
