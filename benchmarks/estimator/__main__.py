"""``python -m benchmarks.estimator directions|trials|groups|page``: measure stage 2's estimators."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.estimator import groups
from benchmarks.estimator.directions import study
from benchmarks.estimator.page import FIGURES, write_page
from benchmarks.estimator.trials import TRIALS, ranking, run_trial
from latentrec.steps.status import exit_code_on_error


def main() -> None:
    """Figures of one model at a time, under ``docs/estimator/``; what exists is not measured again."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimator", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    directions = commands.add_parser("directions", help="cosines and slopes at trained stage-1 models")
    directions.add_argument("--sigmas", nargs="+", type=float, default=[0.03, 0.1, 0.3])
    directions.add_argument("--prompts", type=int, default=256, help="training prompts, a seeded draw")
    directions.add_argument("--draws", type=int, default=2, help="draws of the noise")
    trials = commands.add_parser("trials", help="short trainings of stage 2, one thing changed at a time")
    trials.add_argument("--trials", nargs="+", default=list(TRIALS), choices=list(TRIALS))
    sampled = commands.add_parser("groups", help="sampled groups of titles against all titles counted")
    sampled.add_argument("--prompts", type=int, default=64, help="training prompts, a seeded draw")
    sampled.add_argument("--draws", type=int, default=4, help="draws of every group")
    for command in (directions, trials, sampled):
        command.add_argument("--dataset", type=Path, required=True)
        command.add_argument("--model", type=Path, required=True, help="a stage-1 model directory, N = 1")
        command.add_argument("--label", required=True, help="of dataset, model and seed, for the tables")
        command.add_argument("--seed", type=int, default=1)
    commands.add_parser("page", help="only write docs/estimator.md again")
    arguments = parser.parse_args()
    with exit_code_on_error():
        if arguments.command == "directions":
            found = study(
                arguments.dataset,
                arguments.model,
                name=arguments.label,
                sigmas=tuple(arguments.sigmas),
                prompts=arguments.prompts,
                draws=arguments.draws,
                seed=arguments.seed,
            )
            _write("directions", arguments.label, found)
        if arguments.command == "groups":
            found = groups.study(
                arguments.dataset,
                arguments.model,
                name=arguments.label,
                prompts=arguments.prompts,
                draws=arguments.draws,
                seed=arguments.seed,
            )
            _write("groups", arguments.label, found)
        if arguments.command == "trials":
            _trials(arguments)
        print(f"wrote {write_page()}")


def _write(kind: str, label: str, found: list[dict[str, Any]]) -> None:
    place = FIGURES / kind / f"{label}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _trials(arguments: argparse.Namespace) -> None:
    start = FIGURES / "trials" / f"{arguments.label}-start.json"
    if not start.is_file():
        start.parent.mkdir(parents=True, exist_ok=True)
        value = ranking(arguments.dataset, arguments.model)
        start.write_text(json.dumps({"on": arguments.label, "ndcg_at_10": value}) + "\n", encoding="utf-8")
    for name in arguments.trials:
        if run_trial(
            name,
            dataset=arguments.dataset,
            model=arguments.model,
            label=arguments.label,
            output=FIGURES / "trials",
            seed=arguments.seed,
        ):
            print(f"done: {arguments.label}, {name}", flush=True)


if __name__ == "__main__":
    main()
