"""Component: batch scoring in shards: one file of all shards."""

from typing import List  # noqa: UP035  (KFP 2.17 knows no list[…] of artifacts)

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("register"), install_kfp_package=False)
def merge_shards(
    shards: dsl.Input[List[dsl.Artifact]],  # noqa: UP006
    recommendations: dsl.Output[dsl.Artifact],
    output_uri: str = "",
) -> int:
    """Write one Parquet file of the shards, the bytes that one pod would have written.

    Args:
        shards: The shards' files, in any order.
        output_uri: Also write it there: a .parquet location or a folder, for example gs://BUCKET/serving.

    Returns:
        recommendations: The whole Parquet file.
        Output: How many users.
    """
    from latentrec.steps.scoring_steps import run_merge_shards_step

    return run_merge_shards_step(shards, recommendations, output_uri)
