"""``latentrec data-prep``: reviews and metadata to a dataset directory."""

from __future__ import annotations

import argparse

from latentrec.core import add_config_arguments, config_from_namespace
from latentrec.data import DataPrepConfig, is_no_new_data, prepare
from latentrec.steps.step_run import step_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command: every field of :class:`DataPrepConfig`, and the output."""
    parser.add_argument("--output", required=True, metavar="DIR", help="the dataset directory to make")
    add_config_arguments(parser, DataPrepConfig)


def run(namespace: argparse.Namespace) -> None:
    """Prepare, and print the funnel and the fingerprint."""
    config = config_from_namespace(DataPrepConfig, namespace)
    with step_run("data_prep", config=config) as step:
        manifest = prepare(config, namespace.output)
        nothing_new = is_no_new_data(manifest)
        step.status.details.update(
            counts=manifest.counts, fingerprint=manifest.fingerprint, no_new_data=nothing_new
        )
        step.metric_logger.log_metrics(
            {f"data/{name}": float(count) for name, count in manifest.counts.items()}, 0
        )
        step.metric_logger.log_artifact(f"{namespace.output}/report.html")
    print(f"{'after':<12}{'interactions':>14}{'users':>12}{'items':>12}")
    for step in manifest.extra["funnel"]:
        name = "repeats" if step["name"] == "duplicates" else step["name"]
        print(f"{name:<12}{step['interactions']:>14,}{step['users']:>12,}{step['items']:>12,}")
    counts = manifest.counts
    kept = "kept" if config.duplicates == "keep" else "dropped"
    print(f"repeats of user, item and time: {counts['repeats']:,} ({kept})")
    print(f"samples: train {counts['train']:,}, valid {counts['valid']:,}, test {counts['test']:,}")
    for check in manifest.extra["checks"]:
        if not check["ok"]:
            print(f"{check['level']}: {check['name']}: {check['detail']}")
    print(f"fingerprint: {manifest.fingerprint}")
    print(f"dataset: {namespace.output} (report.html inside)")
    if nothing_new:
        advice = "training can be left out" if config.on_no_new_data == "stop" else "training goes on"
        print(f"no new data: this dataset is the one of {config.previous}; {advice}")
