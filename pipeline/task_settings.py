"""Where and how a step's pod runs: nodes, resources, caching, retries, names. One profile a kind of step.

What a user may choose comes from run parameters (KFP takes them at run time): the number of accelerators,
and, through preflight's outputs, cpu, memory, node selector and tolerations. All of them are texts: KFP
leaves out, without a word, a limit whose value is a number. The rest is fixed when the pipeline is
compiled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from kfp import dsl, kubernetes

from latentrec.core.cluster_names import SETTINGS_CONFIG_MAP, STORE_KEYS_SECRET
from latentrec.core.settings import (
    ALLOW_LOCAL_IMAGES_VARIABLE,
    ARTIFACT_ROOT_VARIABLE,
    CHECKPOINT_ROOT_VARIABLE,
    HUB_VARIABLE,
    IMAGE_DIGEST_VARIABLE,
    IMAGE_VARIABLE,
    KFP_API_VARIABLE,
    KFP_UI_VARIABLE,
    LOG_FORMAT_VARIABLE,
    MAX_RESTARTS_VARIABLE,
    MLFLOW_EXPERIMENT_NAME_VARIABLE,
    MLFLOW_TRACKING_URI_VARIABLE,
    MLFLOW_UI_VARIABLE,
    NOTIFY_ON_VARIABLE,
    NOTIFY_URL_VARIABLE,
    PIPELINE_VARIABLE,
    RUN_ID_VARIABLE,
    S3_ACCESS_KEY_VARIABLE,
    S3_ENDPOINT_VARIABLE,
    S3_SECRET_KEY_VARIABLE,
    STATUS_ROOT_VARIABLE,
    STEP_VARIABLE,
    TRAIN_QUEUE_VARIABLE,
)

ACCELERATOR = "nvidia.com/gpu"
USER = 10001
"""Numeric user and group of every image."""

SETTINGS = SETTINGS_CONFIG_MAP
"""ConfigMap with what every step of an installation shares (``manifests/base/settings.env``)."""

SETTING_NAMES = (
    MLFLOW_TRACKING_URI_VARIABLE,
    MLFLOW_EXPERIMENT_NAME_VARIABLE,
    STATUS_ROOT_VARIABLE,
    CHECKPOINT_ROOT_VARIABLE,
    ARTIFACT_ROOT_VARIABLE,
    HUB_VARIABLE,
    KFP_API_VARIABLE,
    S3_ENDPOINT_VARIABLE,
    ALLOW_LOCAL_IMAGES_VARIABLE,
    KFP_UI_VARIABLE,
    MLFLOW_UI_VARIABLE,
    NOTIFY_ON_VARIABLE,
    LOG_FORMAT_VARIABLE,
    TRAIN_QUEUE_VARIABLE,
)
STORE_KEYS = STORE_KEYS_SECRET
"""Secret with the keys of KFP's own object store; KFP makes it, an installation on ``gs://`` may lack it."""

STORE_KEY_NAMES = {"accesskey": S3_ACCESS_KEY_VARIABLE, "secretkey": S3_SECRET_KEY_VARIABLE}

CREDENTIALS = "latentrec-credentials"
"""Secret with the tokens that a step may need; made by the operator, never part of a pipeline."""

CREDENTIAL_NAMES = {
    "hf-token": "HF_TOKEN",
    "endpoint-key": "OPENAI_API_KEY",
    "notify-url": NOTIFY_URL_VARIABLE,
}
MODEL_TOKENS = ("hf-token", "endpoint-key")
"""Keys of the Secret for steps that fetch a gated backbone or ask RecOne's endpoint."""


BACKOFF_S = 60
"""Seconds before the first retry; twice as long before each further one."""

NODE_WAIT_S = 24 * 3600
"""How long the pod of a retry may wait for a node (a spot node that was taken away comes back late)."""


SMALL = ("1", "2Gi")
"""CPU and memory of the steps that decide the others' sizes, and of the run summary."""


@dataclass(frozen=True)
class Profile:
    """What all steps of one kind have in common.

    Attributes:
        size: kind of its size, which preflight decides (``data``, ``train``, ``traces``, ``register``) or a
            parameter (``score``); empty for :data:`SMALL`, which every cluster has.
        cached: whether KFP may serve the step from its cache; never for a step that reads the world.
        retries: attempts after a failure; only for steps that resume from a checkpoint, and for shards. KFP
            starts a lost pod again that often, and the step its own worker (``latentrec.steps.launch``).
        timeout_s: seconds after which the step is stopped.
        gpu: whether the step goes to the run's GPU pool.
        several_gpus: whether it can use as many accelerators and nodes as the run asks for, and not just one.
        shm: size of /dev/shm in memory, for the loaders of training steps; empty for the container's 64 MiB.
        credentials: keys of the Secret that the step is given; it sees no others.
    """

    size: str
    cached: bool
    retries: int
    timeout_s: int
    gpu: bool = False
    several_gpus: bool = False
    shm: str = ""
    credentials: tuple[str, ...] = ()


PREFLIGHT = Profile("", cached=False, retries=0, timeout_s=900, credentials=MODEL_TOKENS)
DATA = Profile("data", cached=True, retries=0, timeout_s=4 * 3600)
TRAIN_CPU = Profile("train", cached=True, retries=3, timeout_s=48 * 3600, shm="2Gi")
TRAIN = Profile(
    "train",
    cached=True,
    retries=3,
    timeout_s=48 * 3600,
    gpu=True,
    several_gpus=True,
    shm="8Gi",
    credentials=MODEL_TOKENS,
)
TRAIN_ON_ONE = replace(TRAIN, several_gpus=False)
TRACES = Profile("traces", cached=True, retries=2, timeout_s=24 * 3600, credentials=MODEL_TOKENS)
EVALUATE = Profile("train", cached=False, retries=0, timeout_s=12 * 3600, gpu=True)
REGISTER = Profile("register", cached=False, retries=0, timeout_s=3600)
SCORE = Profile("score", cached=False, retries=3, timeout_s=24 * 3600)
ROLL_OUT = Profile("register", cached=False, retries=2, timeout_s=3600)
SUMMARY = Profile("", cached=False, retries=0, timeout_s=900, credentials=("notify-url",))


def longest_retried(profile: Profile) -> int:
    """Seconds from a step's first start within which KFP may still start it again.

    KFP hands this to Argo as ``maxDuration``, which counts from the first attempt's start and not from the
    failure: it has to cover every attempt's timeout, the pauses between them, and the wait for a node.
    """
    attempts = profile.timeout_s * (profile.retries + 1)
    pauses = sum(BACKOFF_S * 2**retry + NODE_WAIT_S for retry in range(profile.retries))
    return attempts + pauses


def place(
    task: dsl.PipelineTask,
    profile: Profile,
    *,
    system: str,
    step: str,
    title: str,
    pool: Mapping[str, Any],
) -> dsl.PipelineTask:
    """Give a task its name, environment, resources, nodes, caching and retries.

    Args:
        task: the task.
        profile: its kind.
        system: name of the pipeline.
        step: name under which the step records its status.
        title: display name.
        pool: preflight's outputs: the sizes, and for GPU steps ``node_selector``, ``tolerations``,
            ``one_gpu``; for distributed training the same as ``trainer_…``.
    """
    task.set_display_name(title)
    size, place = ("trainer", "trainer_") if profile.several_gpus else (profile.size, "")
    cpu, memory = (pool[f"{size}_{what}"] for what in ("cpu", "memory")) if size else SMALL
    _use(task, cpu, memory)
    task.set_cpu_limit(cpu).set_memory_limit(memory)
    task.set_caching_options(profile.cached)
    if profile.retries:
        task.set_retry(
            num_retries=profile.retries,
            backoff_duration=f"{BACKOFF_S}s",
            backoff_factor=2,
            backoff_max_duration=f"{longest_retried(profile)}s",
        )
    kubernetes.set_timeout(task, profile.timeout_s)
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    if profile.shm:
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=profile.shm)
    if profile.gpu:
        limit = pool["trainer_gpus"] if profile.several_gpus else pool["one_gpu"]
        _use(task, limit)
        task.set_accelerator_type(ACCELERATOR).set_accelerator_limit(limit)
        kubernetes.add_node_selector_json(task, pool[f"{place}node_selector"])
        kubernetes.add_toleration_json(task, pool[f"{place}tolerations"])
    _environment(task, profile, system, step)
    for key, value in (("app.kubernetes.io/part-of", "latentrec"), ("latentrec/system", system)):
        kubernetes.add_pod_label(task, key, value)
    kubernetes.add_pod_label(task, "latentrec/step", step)
    return task


def _use(task: dsl.PipelineTask, *values: Any) -> None:
    """Declare that a task reads these: KFP's resource setters do not, and a task in a condition needs it."""
    task.register_pipeline_channels(
        [v for v in values if isinstance(v, dsl.pipeline_channel.PipelineChannel)]
    )


def _environment(task: dsl.PipelineTask, profile: Profile, system: str, step: str) -> None:
    """The run's id from the pod's label, never from a parameter: that would defeat caching."""
    task.set_env_variable(PIPELINE_VARIABLE, system)
    task.set_env_variable(STEP_VARIABLE, step)
    if profile.retries:
        task.set_env_variable(MAX_RESTARTS_VARIABLE, str(profile.retries))
    image = task.container_spec.image if task.container_spec else ""
    if step in ("preflight", "roll_out"):
        task.set_env_variable(IMAGE_VARIABLE, image)
    if "@" in image:
        task.set_env_variable(IMAGE_DIGEST_VARIABLE, image.partition("@")[2])
    kubernetes.use_field_path_as_env(task, RUN_ID_VARIABLE, "metadata.labels['pipeline/runid']")
    kubernetes.use_config_map_as_env(task, SETTINGS, {name: name for name in SETTING_NAMES}, optional=True)
    kubernetes.use_secret_as_env(task, STORE_KEYS, dict(STORE_KEY_NAMES), optional=True)
    if profile.credentials:
        given = {key: CREDENTIAL_NAMES[key] for key in profile.credentials}
        kubernetes.use_secret_as_env(task, CREDENTIALS, given, optional=True)
