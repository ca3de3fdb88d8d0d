"""``latentrec pull``: a registered model's directory, to read, to evaluate, or to train on from."""

from __future__ import annotations

import argparse

from latentrec.registry.download import pull_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument(
        "--model", required=True, metavar="URI", help="models:/NAME@ALIAS or models:/NAME/VERSION"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="directory to make")


def run(namespace: argparse.Namespace) -> None:
    """Copy and say what it is."""
    model = pull_model(namespace.model, namespace.output)
    print(f"{namespace.output}: {model.name} version {model.version}")
    for key, value in sorted(model.tags.items()):
        print(f"  {key:<22}{value}")
