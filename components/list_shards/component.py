"""Component: batch scoring in shards: which version is scored, and by how many pods."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("register"), install_kfp_package=False)
def list_shards(
    model_uri: str,
    users: str,
    shards: int = 1,
    k: int = 10,
    batch_size: int = 256,
    cpu: str = "4",
    memory: str = "16Gi",
) -> list:
    """Check what the shards are given, resolve the model's version once for all of them, and list them.

    Never cached: an alias may point elsewhere tomorrow.

    Args:
        model_uri: models:/NAME@ALIAS or models:/NAME/VERSION.
        users: Parquet or JSON lines with user_key and history, gs:// or a path.
        shards: How many pods score.
        k: Length of each list.
        batch_size: Users ranked together.
        cpu: Of each pod that scores, for example 4.
        memory: Of each pod that scores, for example 16Gi.

    Returns:
        Output: The shards, each with version (models:/NAME/VERSION) and part (I/N).
    """
    from latentrec.steps.scoring_steps import run_list_shards_step

    return run_list_shards_step(
        model_uri, users, shards=shards, k=k, batch_size=batch_size, cpu=cpu, memory=memory
    )
