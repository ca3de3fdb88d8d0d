"""Component: batch scoring: recommendations of a registered model for every user of a dataset."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("register"), install_kfp_package=False)
def batch_score(
    dataset: dsl.Input[dsl.Dataset],
    recommendations: dsl.Output[dsl.Artifact],
    model_uri: str,
    output_uri: str = "",
    k: int = 10,
    exclude_history: bool = True,
) -> int:
    """Write the best items of every user to Parquet; the number of users is returned.

    Never cached: it reads the registry, where an alias may point elsewhere tomorrow.

    Args:
        dataset: The dataset directory; each user's whole history is read.
        model_uri: models:/NAME@ALIAS or models:/NAME/VERSION.
        output_uri: Also write it there: a .parquet location or a folder, for example gs://BUCKET/serving.
        k: Length of each list.
        exclude_history: Leave out what the user has.

    Returns:
        recommendations: The Parquet file, with the model's version in its metadata.
        Output: How many users.
    """
    from latentrec.steps.scoring_steps import run_batch_score_step

    return run_batch_score_step(
        model_uri, dataset.path, recommendations, output_uri, k=k, exclude_history=exclude_history
    )
