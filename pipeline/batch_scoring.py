"""Batch scoring: list the shards → one pod a shard, each retried alone → one file of all."""

from kfp import dsl

from components.list_shards.component import list_shards
from components.merge_shards.component import merge_shards
from components.score_shard.component import score_shard
from pipeline import task_settings as placement
from pipeline.kfp_compat import settings_without_sources

REGISTER_SIZE = {"register_cpu": "2", "register_memory": "8Gi"}


@dsl.pipeline(name="batch-scoring", description="Recommendations of a registered model for many users")
def batch_scoring(
    model_uri: str,
    users: str,
    batch_score_shards: int = 1,
    output_uri: str = "",
    k: int = 10,
    batch_size: int = 256,
    score_cpu: str = "4",
    score_memory: str = "16Gi",
) -> None:
    """Score the users of a file with one registered version, and write one Parquet file.

    Args:
        model_uri: models:/NAME@ALIAS or models:/NAME/VERSION
        users: Parquet or JSON lines with user_key and history, gs://, s3:// or minio://
        batch_score_shards: Pods that share the users; the result is the same to the last byte
        output_uri: Also write the file there: a .parquet location or a folder
        k: Length of each list
        batch_size: Users ranked together
        score_cpu: CPUs of each pod that scores
        score_memory: Memory of each pod that scores
    """

    def step(task: dsl.PipelineTask, profile: placement.Profile, name: str, title: str) -> dsl.PipelineTask:
        pool = {**REGISTER_SIZE, "score_cpu": score_cpu, "score_memory": score_memory}
        return placement.place(task, profile, system="batch_scoring", step=name, title=title, pool=pool)

    with settings_without_sources():
        listed = list_shards(
            model_uri=model_uri,
            users=users,
            shards=batch_score_shards,
            k=k,
            batch_size=batch_size,
            cpu=score_cpu,
            memory=score_memory,
        )
        step(listed, placement.REGISTER, "list_shards", "List shards")
        with dsl.ParallelFor(listed.output, name="Shards") as shard:
            scored = score_shard(
                model_uri=shard.version, users=users, shard=shard.part, k=k, batch_size=batch_size
            )
            step(scored, placement.SCORE, "score_shard", "Score a shard")
        merged = merge_shards(shards=dsl.Collected(scored.outputs["recommendations"]), output_uri=output_uri)
        step(merged, placement.REGISTER, "merge_shards", "Merge shards")
