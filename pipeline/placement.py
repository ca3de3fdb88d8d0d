"""Where and how a step's pod runs: resources, caching, retries, names. One profile a kind of step."""

from __future__ import annotations

from dataclasses import dataclass

from kfp import dsl


@dataclass(frozen=True)
class Profile:
    """What all steps of one kind have in common.

    Attributes:
        cpu: limit, Kubernetes notation.
        memory: limit, Kubernetes notation.
        cached: whether KFP may serve the step from its cache; never for a step that reads the world.
        retries: attempts after a failure; only for steps that resume from a checkpoint.
        timeout_s: seconds after which the step is stopped.
    """

    cpu: str
    memory: str
    cached: bool
    retries: int
    timeout_s: int


PREFLIGHT = Profile(cpu="1", memory="2Gi", cached=False, retries=0, timeout_s=900)
DATA = Profile(cpu="4", memory="16Gi", cached=True, retries=0, timeout_s=4 * 3600)
TRAIN = Profile(cpu="8", memory="32Gi", cached=True, retries=3, timeout_s=48 * 3600)
TRACES = Profile(cpu="2", memory="8Gi", cached=True, retries=2, timeout_s=24 * 3600)
EVALUATE = Profile(cpu="8", memory="32Gi", cached=False, retries=0, timeout_s=12 * 3600)
REGISTER = Profile(cpu="2", memory="8Gi", cached=False, retries=0, timeout_s=3600)
SUMMARY = Profile(cpu="1", memory="2Gi", cached=False, retries=0, timeout_s=900)


def place(
    task: dsl.PipelineTask, profile: Profile, *, system: str, step: str, title: str
) -> dsl.PipelineTask:
    """Give a task its name, environment, resources, caching and retries.

    Args:
        task: the task.
        profile: its kind.
        system: name of the pipeline.
        step: name under which the step records its status.
        title: display name.
    """
    task.set_display_name(title)
    task.set_env_variable("LATENTREC_PIPELINE", system)
    task.set_env_variable("LATENTREC_STEP", step)
    task.set_cpu_limit(profile.cpu)
    task.set_memory_limit(profile.memory)
    task.set_caching_options(profile.cached)
    if profile.retries:
        task.set_retry(
            num_retries=profile.retries, backoff_duration="60s", backoff_factor=2, backoff_max_duration="900s"
        )
    return task
