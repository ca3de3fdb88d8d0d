"""The bodies of the components that score many users: by one pod, or by several that share them.

``batch_score`` alone; or ``list_shards``, one ``score_shard`` a pod, and ``merge_shards``.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latentrec.core import UserError
from latentrec.steps.launch import launch_worker
from latentrec.steps.scoring_parameters import check_scoring
from latentrec.steps.status import exit_code_on_error
from latentrec.steps.step_run import ensure_parent_run, finish_parent_run, step_run
from latentrec.storage import is_local, join, local_path, store_for
from latentrec.tracking.run_context import adopt_settings


def run_list_shards_step(
    model_uri: str, users: str, *, shards: int, k: int, batch_size: int, cpu: str, memory: str
) -> list[dict[str, str]]:
    """The body of the list_shards component: each shard's version and part (``I/N``).

    Every shard scores that version, also when the alias moves meanwhile.

    Args:
        model_uri: registered model.
        users: as of :func:`latentrec.steps.batch_scoring.batch_score`.
        shards: how many.
        k: list length.
        batch_size: users ranked together.
        cpu, memory: limits of a pod that scores; only checked here.
    """
    from latentrec.registry.model_registry import Registry
    from latentrec.steps.preflight import workflow_tag

    given = {"model_uri": model_uri, "users": users, "batch_score_shards": shards}
    given |= {"k": k, "batch_size": batch_size, "score_cpu": cpu, "score_memory": memory}
    with exit_code_on_error():
        adopt_settings()
        check_scoring(given)
        is_dataset = is_local(users) and local_path(users).is_dir()
        if not is_dataset and store_for(users).stat(users) is None:
            raise UserError(
                f"{users}: no such file; expected Parquet or JSON lines with user_key and history",
                code="users.not_found",
            )
        ensure_parent_run(given, workflow_tag())
        with step_run("list_shards") as run:
            version = Registry().resolve(model_uri).uri
            run.status.details |= {"model": version, "shards": shards}
    return [{"version": version, "part": f"{number}/{shards}"} for number in range(1, shards + 1)]


def run_score_shard_step(
    model_uri: str, users: str, shard: str, artifact: Any, *, k: int, batch_size: int
) -> int:
    """The body of the score_shard component; returns the number of users in the shard.

    All shards of a run are one step of the pipeline, so none records a status or an MLflow run: the merge
    does. A worker that dies of something transient is started again in its pod, as trainers are.

    Args:
        model_uri: registered version.
        users: as of :func:`latentrec.steps.batch_scoring.batch_score`.
        shard: ``I/N``.
        artifact: KFP's output; ``path`` is where the Parquet file goes.
        k: list length.
        batch_size: users ranked together.
    """
    from latentrec.steps.batch_scoring import batch_score
    from latentrec.steps.score_shards import Shard

    with exit_code_on_error(), tempfile.TemporaryDirectory() as folder:
        launch_worker(distributed=False)
        adopt_settings()
        result = batch_score(
            model=model_uri,
            users=users,
            output=folder,
            k=k,
            batch_size=batch_size,
            shard=Shard.parse(shard),
        )
        shutil.copyfile(result.uri, artifact.path)
        artifact.metadata.update({"users": result.users, "fallbacks": result.fallbacks})
    return result.users


def run_merge_shards_step(shards: Sequence[Any], artifact: Any, output_uri: str) -> int:
    """The body of the merge_shards component; returns the number of users.

    Args:
        shards: KFP's artifacts of the shards, in any order: that of a loop's passes is not promised.
        artifact: KFP's output; ``path`` is where the whole file goes.
        output_uri: a second place for it; empty: none.
    """
    from latentrec.steps.score_shards import in_order, merge_files

    with exit_code_on_error():
        with step_run("merge_shards") as run:
            made = f"{artifact.path}.parquet"
            _, users = merge_files(in_order([shard.path for shard in shards]), made)
            _copy_scored(made, output_uri)
            Path(made).rename(artifact.path)
            reported = {"users": users, "shards": len(shards)}
            artifact.metadata.update(reported)
            run.status.details |= reported
        finish_parent_run("FINISHED")
    return users


def run_batch_score_step(
    model_uri: str, dataset: str, artifact: Any, output_uri: str, *, k: int, exclude_history: bool | None
) -> int:
    """The body of the batch_score component; returns the number of users.

    Args:
        model_uri: registered model.
        dataset: dataset directory.
        artifact: KFP's output; ``path`` is where the Parquet file goes.
        output_uri: a second place for it; empty: none.
        k: list length.
        exclude_history: leave out what the user has; ``None``: as the model was evaluated.
    """
    from latentrec.steps.batch_scoring import batch_score

    config = {"model": model_uri, "k": k, "exclude_history": exclude_history, "output": output_uri}
    with exit_code_on_error(), step_run("batch_score", config=config) as run:
        made = f"{artifact.path}.parquet"
        result = batch_score(
            model=model_uri, users=dataset, output=made, k=k, exclude_history=exclude_history
        )
        _copy_scored(made, output_uri)
        Path(made).rename(artifact.path)
        reported = {"users": result.users, "fallbacks": result.fallbacks, "model": result.model.uri}
        artifact.metadata.update(reported)
        run.status.details |= reported
    return result.users


def _copy_scored(made: str, output_uri: str) -> None:
    """Put a scored file to its second place: a ``.parquet`` location or a folder; empty: nowhere."""
    from latentrec.steps.batch_scoring import FILE_NAME

    if output_uri:
        target = output_uri if output_uri.endswith(".parquet") else join(output_uri, FILE_NAME)
        store_for(target).upload_file(Path(made), target)
