"""One recommendation through the registered pyfunc: what ``make recommend`` shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from latentrec.core import UserError
from latentrec.registry.model_registry import RegisteredVersion, Registry
from latentrec.serving.request_schemas import BadRequest, parse_parameters, parse_rows


@dataclass(frozen=True)
class Recommendation:
    """The contract's columns for one user, and the version that answered."""

    model: RegisteredVersion
    item_keys: list[str]
    titles: list[str]
    scores: list[float]
    unknown_items: int
    fallback: bool


def recommend(
    uri: str, history: Sequence[str], *, k: int = 10, exclude_history: bool = True
) -> Recommendation:
    """Load the registered model and ask it for one user.

    Args:
        uri: ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
        history: item keys, oldest first.
        k: how many.
        exclude_history: leave out the items of the history.

    Raises:
        UserError: no such model, a rating model, or a value out of its range.
    """
    try:
        parse_parameters({"k": k, "exclude_history": exclude_history})
        parse_rows([{"history": list(history)}])
    except BadRequest as error:
        raise UserError(str(error)) from None
    model = Registry().resolve(uri)
    import mlflow
    import pandas as pd

    served = mlflow.pyfunc.load_model(model.uri)
    if "target" in served.metadata.get_input_schema().input_names():
        raise UserError(f"{model.uri} predicts ratings and does not recommend; see docs/using-the-model.md")
    answer = served.predict(
        pd.DataFrame({"history": [list(history)]}), params={"k": k, "exclude_history": exclude_history}
    ).iloc[0]
    return Recommendation(
        model,
        list(answer["item_keys"]),
        list(answer["titles"]),
        list(answer["scores"]),
        int(answer["unknown_items"]),
        bool(answer["fallback"]),
    )
