"""Component: evaluation: all models on one split, against each other and against the champion."""

from typing import NamedTuple

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("evaluate"), install_kfp_package=False)
def evaluate(
    dataset: dsl.Input[dsl.Dataset],
    names: list,
    model_1: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    report_markdown: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
    model_2: dsl.Input[dsl.Model] = None,  # type: ignore[assignment]
    model_3: dsl.Input[dsl.Model] = None,  # type: ignore[assignment]
    model_4: dsl.Input[dsl.Model] = None,  # type: ignore[assignment]
    model_5: dsl.Input[dsl.Model] = None,  # type: ignore[assignment]
    model_6: dsl.Input[dsl.Model] = None,  # type: ignore[assignment]
    champion_of: str = "",
    config: dict = {},  # noqa: B006
) -> NamedTuple("Verdict", [("promote", bool), ("reason", str)]):  # type: ignore[valid-type]
    """Score models on the test split; decide whether the last of them may become champion.

    Args:
        dataset: The dataset directory.
        names: Name of each model in the tables, in order; the last one is the challenger.
        model_1: First model directory.
        model_2: Second model directory.
        model_3: Third model directory.
        model_4: Fourth model directory.
        model_5: Fifth model directory.
        model_6: Sixth model directory.
        champion_of: Registered model whose champion takes part; empty: the default, by system and dataset.
        config: Fields of the step's configuration; those left out have their default.

    Returns:
        evaluation: The evaluation directory.
        report: The report.
        report_markdown: The same report as Markdown.
        metrics: The challenger's metrics.
        promote: Whether the gate lets the challenger become champion.
        reason: Why.
    """
    from latentrec.evaluation import evaluate
    from latentrec.steps.model_name import champion_for
    from latentrec.steps.runtime import open_step

    given = [model_1, model_2, model_3, model_4, model_5, model_6]
    models = {name: model.path for name, model in zip(names, given, strict=False)}
    with open_step("evaluate", config, dataset=dataset.path) as step:
        champion = champion_for(dataset.path, list(models.values())[-1], champion_of)
        manifest = evaluate(
            step.config,
            dataset=dataset.path,
            models=models,
            output=evaluation.path,
            champion=champion,
            metric_logger=step.metric_logger,
        )
        reports = {"report.html": report, "report.md": report_markdown}
        verdict = step.finish_evaluation(evaluation, manifest, reports=reports, metrics=metrics)
    return (verdict.promote, verdict.reason)  # type: ignore[return-value]
