"""The steps that RecZero and RecOne share."""

from __future__ import annotations

from typing import Any

from kfp import dsl

from components.pretrain_rating.component import pretrain_rating
from components.rating_grpo.component import rating_grpo
from pipeline import task_settings as placement
from pipeline.builder import Run


def starting_model(run: Run, dataset: Any) -> dsl.PipelineTask:
    """The model that reinforcement learning starts from: a placeholder, or a real one by name."""
    task = pretrain_rating(dataset=dataset, config=run.config("pretrain_rating"))
    return run.step(task, placement.TRAIN_ON_ONE, name="pretrain_rating", title="Starting model")


def reinforce(run: Run, dataset: Any, parent: dsl.PipelineTask) -> dsl.PipelineTask:
    """GRPO on rating rewards, from the parent's model."""
    task = rating_grpo(dataset=dataset, parent=parent.outputs["model"], config=run.config("rating_grpo"))
    return run.step(task, placement.TRAIN, name="rating_grpo", title="Rating GRPO")
