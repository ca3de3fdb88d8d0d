"""Component: batch scoring in shards: the lists of one shard's users."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("register"), install_kfp_package=False)
def score_shard(
    model_uri: str,
    users: str,
    shard: str,
    recommendations: dsl.Output[dsl.Artifact],
    k: int = 10,
    batch_size: int = 256,
) -> int:
    """Write the best items of every user of one shard to Parquet; the number of its users is returned.

    Args:
        model_uri: Registered version, models:/NAME/VERSION; the same for all shards.
        users: Parquet or JSON lines with user_key and history, gs:// or a path.
        shard: Which one, as I/N; users are divided by the batches that are ranked together.
        k: Length of each list.
        batch_size: Users ranked together; the same for all shards.

    Returns:
        recommendations: The shard's Parquet file.
        Output: How many users.
    """
    from latentrec.steps.scoring_steps import run_score_shard_step

    return run_score_shard_step(model_uri, users, shard, recommendations, k=k, batch_size=batch_size)
