"""One recommendation through the registered pyfunc: what ``make recommend`` shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from latentrec.core import UserError
from latentrec.registry.model_registry import CHAMPION, RegisteredVersion, Registry
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


def newest_model(registry: Registry) -> str:
    """``models:/…`` of what the newest run has registered: the champion of that name, else the version.

    Raises:
        UserError: nothing is registered.
    """
    found = registry.newest()
    if found is None:
        raise UserError(
            f"{registry.tracking_uri}: no model is registered yet; run a pipeline first, or give --model",
            code="registry.not_found",
        )
    if registry.by_alias(found.name, CHAMPION) is not None:
        return f"models:/{found.name}@{CHAMPION}"
    return found.uri


def recommend(
    uri: str,
    history: Sequence[str],
    *,
    k: int = 10,
    exclude_history: bool | None = None,
    candidates: Sequence[str] = (),
    exclude_items: Sequence[str] = (),
) -> Recommendation:
    """Load the registered model and ask it for one user.

    Args:
        uri: ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``; empty: that of the newest run.
        history: item keys, oldest first.
        k: how many.
        exclude_history: leave out the items of the history; ``None``: as the model was evaluated.
        candidates: rank only these; empty: the whole catalogue.
        exclude_items: leave these out.

    Raises:
        UserError: no such model, a rating model, or a value out of its range.
    """
    row: dict[str, Any] = {"history": list(history)}
    row |= {"candidates": list(candidates)} if candidates else {}
    row |= {"exclude_items": list(exclude_items)} if exclude_items else {}
    params: dict[str, Any] = {"k": k}
    if exclude_history is not None:
        params["exclude_history"] = exclude_history
    try:
        parse_parameters(params)
    except BadRequest as error:
        raise UserError(str(error), code="config.bad_value") from None
    try:
        parse_rows([row])
    except BadRequest as error:
        raise UserError(str(error), code="users.bad_row") from None
    registry = Registry()
    model = registry.resolve(uri or newest_model(registry))
    import pandas as pd

    served = registry.load(model)
    if "target" in served.metadata.get_input_schema().input_names():
        raise UserError(
            f"{model.uri} predicts ratings and does not recommend; see docs/using-the-model.md",
            code="model.other_kind",
        )
    frame = pd.DataFrame({name: pd.Series([value], dtype=object) for name, value in row.items()})
    answer = served.predict(frame, params=params).iloc[0]
    return Recommendation(
        model,
        list(answer["item_keys"]),
        list(answer["titles"]),
        list(answer["scores"]),
        int(answer["unknown_items"]),
        bool(answer["fallback"]),
    )
