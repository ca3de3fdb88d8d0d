"""``python -m benchmarks.lares_direction --dataset DIR --model DIR``: RPT's estimators, uphill or not."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from benchmarks.rpt_direction import DirectionStudy, study_directions
from latentrec.core import add_config_arguments, config_from_namespace
from latentrec.training.sequential.rpt_config import RPTConfig
from latentrec.training.sequential.state import cpu_threads


def as_markdown(study: DirectionStudy) -> str:
    """Slopes and cosines as two tables."""
    lines = [
        f"Reward at the start: {study.train_reward:.4f} on {study.n_train:,} training targets, "
        f"{study.valid_reward:.4f} on {study.n_valid:,} validation samples.",
        "",
        "| direction | step / norm of weights | change on training | change on validation |",
        "|---|---|---|---|",
    ]
    for slope in study.slopes:
        lines.append(
            f"| {slope.name} | {slope.step:g} | {slope.train:+.4f} ± {1.96 * slope.train_error:.4f} | "
            f"{slope.valid:+.4f} ± {1.96 * slope.valid_error:.4f} |"
        )
    names = list(study.cosines)
    lines += ["", "| cosine | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for name in names:
        cells = " | ".join(f"{study.cosines[name][other]:+.2f}" for other in names)
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print; ``--json FILE`` keeps the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lares_direction", description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--model", required=True, help="a LARES model after SPT")
    parser.add_argument("--max-targets", type=int, default=2000, help="training targets looked at")
    parser.add_argument("--gradient-draws", type=int, default=4, help="passes a gradient is averaged over")
    parser.add_argument("--reward-draws", type=int, default=8, help="draws a reward is averaged over")
    parser.add_argument("--json", help="file for the figures")
    add_config_arguments(parser, RPTConfig)
    arguments = parser.parse_args()
    config = config_from_namespace(RPTConfig, arguments)
    with cpu_threads(1):
        study = study_directions(
            config,
            dataset=arguments.dataset,
            model=arguments.model,
            max_targets=arguments.max_targets,
            gradient_draws=arguments.gradient_draws,
            reward_draws=arguments.reward_draws,
        )
    print(as_markdown(study))
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as stream:
            json.dump(asdict(study), stream, indent=2)


if __name__ == "__main__":
    main()
