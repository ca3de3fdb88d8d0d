"""The steps that LatentR3 and LARES share: the encoders on item ids."""

from __future__ import annotations

from typing import Any

from kfp import dsl

from components.train_sequential.component import train_sequential
from pipeline import task_settings as placement
from pipeline.builder import Run
from pipeline.task_settings import Profile


def popularity(run: Run, dataset: Any) -> dsl.PipelineTask:
    """The floor of every comparison, and of the gate."""
    task = train_sequential(dataset=dataset, encoder="popularity", seed=run.parameters["seed"])
    return run.step(task, placement.TRAIN_CPU, name="popularity", title="Popularity")


def sasrec(run: Run, dataset: Any, profile: Profile) -> dsl.PipelineTask:
    """The baseline that reasoning has to beat."""
    return encoder(
        run, dataset, profile, "sasrec", epochs="sasrec_epochs", options="sequential", title="SASRec"
    )


def encoder(
    run: Run,
    dataset: Any,
    profile: Profile,
    kind: str,
    *,
    epochs: str,
    options: str,
    title: str,
    name: str = "",
) -> dsl.PipelineTask:
    """Train one encoder.

    Args:
        run: the pipeline being built.
        dataset: output of data preparation.
        profile: where it runs.
        kind: of encoder.
        epochs: the pipeline's parameter that limits them.
        options: group of its further options.
        title: display name.
        name: of the step; default: the kind.
    """
    task = train_sequential(
        dataset=dataset,
        encoder=kind,
        max_epochs=run.parameters[epochs],
        seed=run.parameters["seed"],
        options=run.options(options),
    )
    return run.step(task, profile, name=name or kind, title=title)
