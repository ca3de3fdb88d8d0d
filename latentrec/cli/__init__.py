"""The ``latentrec`` command: one module a subcommand, imported only when it is called.

A command module offers ``add_arguments(parser)`` and ``run(namespace)``; the training commands share one
(:mod:`latentrec.cli.training_command`).
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import sys
from typing import Any

from latentrec.core import UserError
from latentrec.core.text import printable_output
from latentrec.steps.status import exit_code_on_error

COMMANDS = {
    "preflight": "check inputs, storage, tracking, backbone and parameters; print inputs_fingerprint",
    "sample": "write reviews.json and meta.json of a small generated shop, in the raw Amazon 2018 format",
    "data-prep": "read reviews, clean, filter, split; write a dataset directory with manifest and report",
    "sft": "LatentR3 stage 1: supervised fine-tuning of backbone and LatentRATT",
    "grpo": "LatentR3 stage 2: GRPO on noised latents (profile paper: as published)",
    "title-objective": "LatentR3 stage 2: an objective over the true title's probability",
    "train-sequential": "train popularity, GRU4Rec, Caser, SASRec or LARES (SPT)",
    "rpt": "LARES phase 2: reinforcement post-training",
    "lares-depth": "evaluate a LARES model at several depths: quality, spread and cost",
    "pretrain-rating": "format-aware pre-training of the small placeholder for an instruct model",
    "traces": "reasoning traces for RecOne's cold start, asked of an endpoint or written by template",
    "cold-start-sft": "RecOne: SFT on reasoning traces",
    "rating-grpo": "RecZero and RecOne: GRPO on rule-based rating rewards",
    "evaluate": "score models on the test split, compare, decide on promotion, report",
    "compare": "compare the models of two runs on the same samples, with intervals over users (and seeds)",
    "register": "register a model and move its aliases through the gate",
    "promote": "move an alias by hand or roll back, with a reason that stays in the registry",
    "recommend": "pull a registered model and print recommendations",
    "pull": "copy a registered model to a directory, verified against its manifest",
    "batch-score": "write the recommendations of many users to Parquet, local or gs://",
    "run-summary": "what happened in a pipeline run, step by step",
    "storage": "list checkpoints, collect unreferenced ones, show the fingerprint of inputs",
}


def main(argv: list[str] | None = None) -> None:
    """Run one subcommand; exit codes are those of ``docs`` (0, 2 bad input, 143 interrupted, 1 failure)."""
    arguments = sys.argv[1:] if argv is None else argv
    with exit_code_on_error(), printable_output():
        _run(arguments)
        sys.stdout.flush()


def _run(arguments: list[str]) -> None:
    listing = "\n".join(f"  {name:<18}{text}" for name, text in COMMANDS.items())
    if not arguments or arguments[0] in ("-h", "--help"):
        print(
            f"usage: latentrec COMMAND [options]   (latentrec COMMAND --help shows every option)\n\n{listing}"
        )
        return
    name = arguments[0]
    if name == "--version":
        print(f"latentrec {importlib.metadata.version('latentrec')}")
        return
    if name not in COMMANDS:
        raise UserError(f"no command '{name}'; there are:\n{listing}", code="config.unknown_name")
    namespace = command_parser(name).parse_args(arguments[1:])
    _command(name).run(_at_home(namespace))


def command_parser(name: str) -> argparse.ArgumentParser:
    """The parser of one command of :data:`COMMANDS`."""
    parser = argparse.ArgumentParser(prog=f"latentrec {name}", description=COMMANDS[name])
    _command(name).add_arguments(parser)
    return parser


def _command(name: str) -> Any:
    """The module of a command, or its entry among the training commands."""
    from latentrec.cli.training_command import TRAINING_COMMANDS

    return TRAINING_COMMANDS.get(name) or importlib.import_module(f"latentrec.cli.{name.replace('-', '_')}")


def _at_home(namespace: argparse.Namespace) -> argparse.Namespace:
    """Expand ``~`` where the shell left it (``--output=~/x``, ``NAME=~/x``); keys and prose stay."""
    for name, value in vars(namespace).items():
        if name not in _NO_LOCATIONS:
            many = isinstance(value, list)
            found = [_expanded(entry) for entry in (value if many else [value])]
            setattr(namespace, name, found if many else found[0])
    return namespace


def _expanded(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    head, separator, tail = value.rpartition("=")
    if tail == "~" or tail.startswith("~/"):
        return f"{head}{separator}{os.path.expanduser(tail)}"
    return value


_NO_LOCATIONS = {"history", "reason", "name", "alias"}
