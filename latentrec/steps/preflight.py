"""Preflight: what can be known before anything costs, checked in one go and reported in one list.

It also returns what makes caching correct: KFP's cache key holds parameter values, not the content behind a
``gs://`` name, so ``inputs_fingerprint`` (generation and checksum, or size and time, of every input object)
is a parameter of data preparation.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from latentrec.core import UserError, config_from_dict
from latentrec.core.config_values import suggestion
from latentrec.core.settings import (
    ALLOW_LOCAL_IMAGES_VARIABLE,
    ARTIFACT_ROOT_VARIABLE,
    CHECKPOINT_ROOT_VARIABLE,
    IMAGE_VARIABLE,
    LOCAL_RUN_VARIABLE,
    STATUS_ROOT_VARIABLE,
    TRAIN_QUEUE_VARIABLE,
)
from latentrec.registry.model_registry import check_model_name
from latentrec.steps import local_run
from latentrec.steps.backbone_check import check_backbone
from latentrec.steps.backend import ask_backend
from latentrec.steps.data_cutoff import cutoff_day
from latentrec.steps.inputs import check_boxes, listed
from latentrec.steps.links import kfp_tags
from latentrec.steps.metadata_beside import metadata_beside
from latentrec.steps.model_name import default_model_name
from latentrec.steps.node_pools import Pool, choose_pool
from latentrec.steps.operational import write_operational
from latentrec.steps.parameters import (
    REVIEWS,
    STAGE_2,
    SYSTEMS,
    check_parameters,
    separate_operational,
    settings_text,
    split_settings,
    step_values,
    targets_of,
)
from latentrec.steps.pods import POD_VARIABLE, KubernetesApi
from latentrec.steps.run_config import RunConfig
from latentrec.steps.several_nodes import OPERATIONAL, check_nodes
from latentrec.steps.step_run import WORKFLOW_TAG, end_abandoned_runs, ensure_parent_run
from latentrec.steps.step_sizes import PROFILES, Size, choose_sizes
from latentrec.steps.train_job import Nodes
from latentrec.steps.training_nodes import TrainerPod, choose_nodes, trainer_pod
from latentrec.storage import ABSENT, StorageError, join, store_for
from latentrec.tracking.embedded_store import open_client
from latentrec.tracking.run_context import SERVED_ARTIFACTS, RunContext, check_artifacts

_logger = logging.getLogger(__name__)

ROOT_VARIABLES = (STATUS_ROOT_VARIABLE, CHECKPOINT_ROOT_VARIABLE, ARTIFACT_ROOT_VARIABLE)
TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"


@dataclass
class PreflightResult:
    """What preflight found.

    Attributes:
        inputs_fingerprint: changes when the content behind the input locations does.
        known_content: of the dataset behind the newest registered version, where the run is to stop when it
            finds that again; else empty.
        start_from: version that holds the champion's alias now, where training is to begin there; else empty.
            A version and not the alias, so that the cache distinguishes a new champion from an old one.
        stage_2: the step that LatentR3's stage 2 runs; empty for other systems.
        configs: what is set of each step's configuration, checked; without what cannot change a result.
        details: what the run summary shows.
        pool: nodes of the GPU steps.
        sizes: CPU and memory of the steps, by kind.
        trainer: the pods of distributed training steps.
    """

    inputs_fingerprint: str = ""
    known_content: str = ""
    start_from: str = ""
    stage_2: str = ""
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    pool: Pool = field(default_factory=Pool)
    sizes: dict[str, Size] = field(default_factory=lambda: dict(PROFILES["default"]))
    trainer: TrainerPod = field(default_factory=lambda: TrainerPod(PROFILES["default"]["train"]))


def run_preflight(parameters: Mapping[str, Any]) -> PreflightResult:
    """Check a run's parameters, inputs, storage, tracking server and backbone.

    Args:
        parameters: the pipeline's parameters by name, ``system`` and ``settings`` among them; those of other
            pipelines are ignored.

    Raises:
        UserError: lists everything that is wrong, not only the first.
        StorageError: nothing is wrong but storage that does not answer: a later attempt may succeed.
    """
    given = {name: value for name, value in parameters.items() if value not in (None, "")}
    system = str(given.pop("system", ""))
    if system not in SYSTEMS:
        raise UserError(
            f"preflight: there is no system '{system}'{suggestion(system, SYSTEMS)}",
            code="config.unknown_name",
        )
    given = {k: v for k, v in given.items() if k in RunConfig.model_fields or targets_of(k, system)}
    settings = given.pop("settings", {})
    checked = PreflightResult()
    problems: list[str] = []
    codes: dict[str, bool] = {}  # whether the user has to act on it

    def attempt(what: str, check: Callable[[], Any]) -> Any:
        try:
            found = check()
        except (UserError, StorageError, OSError) as error:
            code = "storage.no_answer" if isinstance(error, OSError) else error.code
            codes[code] = codes.get(code, False) or isinstance(error, UserError)
            problems.extend(line for line in str(error).splitlines() if line not in problems)
            _logger.error("%s: %s", what, error, extra={"label": "preflight"})
            return None
        _logger.info("preflight: %s: %s", what, found if isinstance(found, str) and found else "ok")
        return found

    # A wrong name among the settings is to hide no other fault.
    known = settings if attempt("settings", lambda: split_settings(system, settings)) is not None else {}
    configs = attempt("parameters", lambda: check_parameters(system, given, known)) or {}
    checked_elsewhere = {"gpu_count", "gpu_nodes", *(name for name in given if targets_of(name, system))}
    run_values = {
        k: v for k, v in given.items() if k in RunConfig.model_fields and k not in checked_elsewhere
    }
    attempt("run", lambda: config_from_dict(RunConfig, run_values))
    placed = {"system": system, **given}
    checked.pool = attempt("nodes", lambda: choose_pool(placed)) or Pool()
    checked.sizes = attempt("sizes", lambda: choose_sizes(placed)) or checked.sizes
    queue = os.environ.get(TRAIN_QUEUE_VARIABLE, "")
    nodes = attempt(
        "training nodes", lambda: choose_nodes(placed, checked.pool, checked.sizes["train"], queue)
    )
    nodes = nodes or Nodes()
    if nodes.count > 1:
        attempt("TrainJob", lambda: check_nodes(nodes))
    checked.trainer = trainer_pod(nodes)
    when = str(parameters.get("scheduled_time") or "")
    cutoff = attempt("data cut-off", lambda: cutoff_day(given.get("data_cutoff", ""), when)) or ""
    data = configs.get("data_prep", {})
    if cutoff and not data.get("window_end"):
        data["window_end"] = cutoff
    reviews, metadata = (
        listed(data.get(field) or given.get(parameter))
        for field, parameter in (("reviews", REVIEWS), ("metadata", "data_metadata"))
    )
    if system == "latentr3" and reviews and not metadata:
        metadata, tried = attempt("metadata", lambda: metadata_beside(reviews)) or ((), ())
        if metadata:
            data["metadata"] = list(metadata)
            checked.details["metadata"] = ", ".join(metadata)
        else:
            tried_for = f", and there is no {' or '.join(tried)}" if tried else ""
            needs = "LatentR3 trains on titles, which come from there"
            problems.append(f"data_metadata is empty{tried_for}; {needs}")
            codes["config.missing_value"] = True
    boxes = {REVIEWS: reviews, "data_metadata": metadata}
    checked.inputs_fingerprint = attempt("inputs", lambda: check_boxes(boxes)) or ""
    in_pod = bool(os.environ.get(POD_VARIABLE))
    if in_pod:
        attempt("installation", check_installation)
        checked.details["kfp_backend"] = attempt("KFP backend", ask_backend) or "unknown"
    for variable in ROOT_VARIABLES:
        root = os.environ.get(variable)
        # MLflow's own server takes artifacts under this scheme; opening the run below asks it.
        if root and not root.startswith(SERVED_ARTIFACTS):
            attempt(f"{variable} {root}", partial(check_writable, root))
    if {"sft", "rating_grpo"} & set(SYSTEMS[system]):
        wanted = configs or _unchecked(system, given, settings)
        note = attempt("backbone", lambda: check_backbone(system, given, wanted))
        if note:
            checked.details["backbone"] = note
    name = str(given.get("registry_model_name", "")) or default_model_name(system, reviews)
    attempt("model's name", lambda: _check_name(name))
    checked.details["model_name"] = name
    if _is_on(given, "data_only_new"):
        checked.known_content = attempt("registered data", lambda: known_content(name)) or ""
    if _is_on(given, "sft_warm_start"):
        checked.start_from = attempt("champion", lambda: champion_version(name)) or ""
    shown = {"system": system, **given, "settings": settings_text(settings)}
    workflow = workflow_tag()
    parent = attempt("tracking", lambda: ensure_parent_run(shown, {**kfp_tags(), **workflow}))
    if in_pod and parent:
        attempt("artifacts", partial(_check_artifacts, parent))
        attempt("earlier runs", _end_abandoned)
    elif parent and workflow:
        attempt("earlier runs", lambda: _ended_in_mlflow(end_abandoned_runs(local_run.is_over)))
    if problems:
        lines = problems[0] if len(problems) == 1 else "".join(f"\n  - {line}" for line in problems)
        code = next(iter(codes)) if len(codes) == 1 else "preflight.several"
        if not any(codes.values()):
            raise StorageError(f"preflight: {lines}", code=code)
        raise UserError(f"preflight: {lines}", code=code)
    if "title_objective" in SYSTEMS[system]:
        asked = str(given.get("stage_2", "profile"))
        checked.stage_2 = STAGE_2[str(given.get("profile", "default"))] if asked == "profile" else asked
    checked.configs, operational = separate_operational(configs)
    if nodes.count > 1:
        operational[OPERATIONAL] = nodes.to_dict()
    if not write_operational(operational):
        checked.configs = configs
    if checked.start_from:
        checked.details["start_from"] = checked.start_from
    if checked.known_content:
        checked.details["known_content"] = checked.known_content
    checked.details |= {"inputs_fingerprint": checked.inputs_fingerprint, "mlflow_parent_run_id": parent}
    return checked


def _unchecked(system: str, given: Mapping[str, Any], settings: Any) -> dict[str, dict[str, Any]]:
    """What was given to each step, so that one wrong value hides no other; none where a name is wrong."""
    try:
        return step_values(system, given, settings)
    except UserError:
        return {}


def check_installation() -> str:
    """What every later step needs of an installation, under KFP.

    Raises:
        UserError: naming every setting that is missing.
    """
    missing = [name for name in (TRACKING_VARIABLE, *ROOT_VARIABLES) if not os.environ.get(name)]
    if missing:
        raise UserError(
            f"{', '.join(missing)}: not set; steps get them from the ConfigMap latentrec-settings of their "
            "namespace (manifests/base/settings.env and the overlay; docs/operations.md, section 6)",
            code="cluster.missing_settings",
        )
    image = os.environ.get(IMAGE_VARIABLE, "")
    if image.startswith("localhost/") and os.environ.get(ALLOW_LOCAL_IMAGES_VARIABLE) != "true":
        raise UserError(
            f"the pipeline was compiled with the image {image}, which no other machine can pull; set "
            "IMAGE_REGISTRY and compile again, or "
            f"{ALLOW_LOCAL_IMAGES_VARIABLE}=true where every node has it",
            code="images.not_pullable",
        )
    return "complete"


def workflow_tag() -> dict[str, str]:
    """Tag with the name of the workflow that runs this pod, or with the process of a run on this machine."""
    name = os.environ.get(LOCAL_RUN_VARIABLE)
    if pod := os.environ.get(POD_VARIABLE):
        api = KubernetesApi.from_pod()
        name = api.workflow_of(pod) if api else None
    return {WORKFLOW_TAG: name} if name else {}


def _check_artifacts(parent: str) -> str:
    context = RunContext.from_environment()
    uri = context.tracking_uri or ""
    return check_artifacts(uri, open_client(uri).get_run(parent).info.artifact_uri)


def _end_abandoned() -> str:
    api = KubernetesApi.from_pod()
    return _ended_in_mlflow(end_abandoned_runs(api.is_over) if api else [])


def _ended_in_mlflow(ended: list[str]) -> str:
    return f"ended in MLflow: {', '.join(ended)}" if ended else "none left running"


def _check_name(name: str) -> Any:
    try:
        return check_model_name(name)
    except UserError as error:
        raise UserError(f"registry_model_name: {error}", code=error.code) from None


def champion_version(model_name: str) -> str:
    """``models:/NAME/VERSION`` of the champion; empty where there is none: training begins at the backbone.

    Raises:
        UserError: the registry cannot be asked.
    """
    from latentrec.registry.model_registry import CHAMPION, Registry

    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise UserError(
            "sft_warm_start needs the model registry; MLFLOW_TRACKING_URI is not set", code="registry.not_set"
        )
    found = Registry().by_alias(model_name, CHAMPION)
    return found.uri if found is not None else ""


def known_content(model_name: str) -> str:
    """Content of the dataset behind the newest version of a registered model; empty where none is known.

    Raises:
        UserError: the registry cannot be asked.
    """
    from latentrec.data import content_of
    from latentrec.registry.download import previous_dataset_manifest

    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise UserError(
            "data_only_new needs the model registry; MLFLOW_TRACKING_URI is not set", code="registry.not_set"
        )
    manifest = previous_dataset_manifest(model_name)
    return content_of(manifest) if manifest is not None else ""


def check_writable(root: str) -> str:
    """Write, read back and remove a small object below ``root``.

    Raises:
        UserError: one of the three fails.
    """
    uri = join(root, f".preflight-{uuid.uuid4().hex}")
    content = uri.encode()
    try:
        store = store_for(uri)
        store.write_bytes(uri, content, if_version=ABSENT)
        if store.read_bytes(uri) != content:
            raise UserError(
                f"{root}: what was written does not read back the same", code="storage.not_durable"
            )
        store.delete(uri)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{root}: cannot be written ({type(error).__name__}: {error})", code="storage.not_writable"
        ) from error
    return "writable"


def _is_on(given: Mapping[str, Any], name: str) -> bool:
    return str(given.get(name, "")).lower() in ("true", "1")
