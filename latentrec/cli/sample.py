"""``latentrec sample``: a small generated shop in the raw Amazon 2018 format."""

from __future__ import annotations

import argparse

from latentrec.data import generate_sample


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="directory for reviews.json and meta.json"
    )
    parser.add_argument("--seed", type=int, default=42, help="of everything random (default: 42)")
    parser.add_argument("--users", type=int, default=420, help="regular customers (default: 420)")
    parser.add_argument("--items", type=int, default=300, help="products, in steps of 72 (default: 300)")
    parser.add_argument(
        "--events-per-user", type=int, default=40, help="mean reviews of a regular customer (default: 40)"
    )


def run(namespace: argparse.Namespace) -> None:
    """Generate and say where the files are."""
    reviews, metadata = generate_sample(
        namespace.output,
        seed=namespace.seed,
        users=namespace.users,
        items=namespace.items,
        events_per_user=namespace.events_per_user,
    )
    print(f"reviews:  {reviews} ({reviews.stat().st_size:,} bytes)")
    print(f"metadata: {metadata} ({metadata.stat().st_size:,} bytes)")
