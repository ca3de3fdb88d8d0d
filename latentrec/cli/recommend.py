"""``latentrec recommend``: load a registered model as any user would, and print its recommendations."""

from __future__ import annotations

import argparse

from latentrec.steps.recommend import recommend


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument(
        "--model",
        default="",
        metavar="URI",
        help="models:/NAME@ALIAS or models:/NAME/VERSION (default: what the newest run has registered)",
    )
    parser.add_argument(
        "--history", default="", metavar="KEY,KEY,…", help="item keys, oldest first; empty: popularity"
    )
    parser.add_argument(
        "--candidates", default="", metavar="KEY,KEY,…", help="rank only these items (default: all)"
    )
    parser.add_argument("--exclude-items", default="", metavar="KEY,KEY,…", help="leave these items out")
    parser.add_argument("--k", type=int, default=10, help="how many (default: 10)")
    parser.add_argument(
        "--exclude-history",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="leave out the items of the history (default: as the model was evaluated)",
    )


def run(namespace: argparse.Namespace) -> None:
    """Print a table, best first."""
    history = _keys(namespace.history)
    result = recommend(
        namespace.model,
        history,
        k=namespace.k,
        exclude_history=namespace.exclude_history,
        candidates=_keys(namespace.candidates),
        exclude_items=_keys(namespace.exclude_items),
    )
    print(f"{result.model.name} version {result.model.version}, after {len(history)} items")
    width = max([len("item"), *(len(key) for key in result.item_keys)])
    print(f"{'':>3}  {'item':<{width}}  {'score':>9}  title")
    rows = zip(result.item_keys, result.scores, result.titles, strict=True)
    for number, (key, score, title) in enumerate(rows, 1):
        print(f"{number:>3}  {key:<{width}}  {score:>9.4f}  {title}")
    if result.unknown_items:
        print(f"{result.unknown_items} of the items in the history are not in the model's catalogue")
    if result.fallback:
        print("no item of the history is known: this is the popularity list")


def _keys(text: str) -> list[str]:
    return [key.strip() for key in text.split(",") if key.strip()]
