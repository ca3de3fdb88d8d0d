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
    return encoder(run, dataset, placement.TRAIN_CPU, "popularity", title="Popularity")


def sasrec(run: Run, dataset: Any, profile: Profile) -> dsl.PipelineTask:
    """The baseline that reasoning has to beat."""
    return encoder(run, dataset, profile, "sasrec", title="SASRec")


def encoder(run: Run, dataset: Any, profile: Profile, step: str, *, title: str) -> dsl.PipelineTask:
    """Train one encoder.

    Args:
        run: the pipeline being built.
        dataset: output of data preparation.
        profile: where it runs.
        step: name of the step, whose configuration says which encoder it is.
        title: display name.
    """
    task = train_sequential(dataset=dataset, distributed=profile.several_gpus, config=run.config(step))
    return run.step(task, profile, name=step, title=title)
