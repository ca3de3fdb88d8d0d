"""What a user of the served model may send: pydantic models, checked before any model sees them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails, PydanticCustomError

MAX_ROWS = 1024
MAX_HISTORY = 1000
MAX_TEXT = 2000
MAX_K = 200
MAX_ITEM_LIST = 20_000
DEFAULT_K = 10
RATING_SYSTEMS = frozenset({"reczero", "recone"})


class BadRequest(ValueError):
    """The request is malformed; the message says which row and field, and what is expected."""


def _as_list(value: Any) -> Any:
    """Arrays and tuples, as a data frame holds them, are lists."""
    if hasattr(value, "tolist") and not isinstance(value, str | bytes):
        value = value.tolist()
    return list(value) if isinstance(value, tuple) else value


def _as_optional_list(value: Any) -> Any:
    """NaN, a data frame's empty cell, means that nothing was given."""
    return None if isinstance(value, float) and value != value else _as_list(value)


def _as_number(value: Any) -> Any:
    """A real number of any type is a float; one that no float holds is infinite, and is refused."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _as_whole(value: Any) -> Any:
    """2.0 and NumPy's integers are whole numbers; a truth value is none."""
    try:
        return value if isinstance(value, bool) or int(value) != value else int(value)
    except (TypeError, ValueError, OverflowError):
        return value


def _as_truth(value: Any) -> Any:
    """NumPy's truth values are Python's."""
    return bool(value) if type(value).__name__ in ("bool_", "bool") else value


Text = Annotated[str, Field(max_length=MAX_TEXT)]
Texts = Annotated[list[Text], Field(max_length=MAX_HISTORY, fail_fast=True)]
History = Annotated[Texts, BeforeValidator(_as_list)]
Titles = Annotated[Texts | None, BeforeValidator(_as_optional_list)]
ManyTexts = Annotated[list[Text], Field(max_length=MAX_ITEM_LIST, fail_fast=True)]
ItemKeys = Annotated[ManyTexts | None, BeforeValidator(_as_optional_list)]
Rating = Annotated[float, BeforeValidator(_as_number), Field(ge=0, le=5, allow_inf_nan=False)]
Ratings = Annotated[list[Rating], Field(fail_fast=True), BeforeValidator(_as_list)]
STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, config=STRICT)
class RequestRow:
    """One user: the item keys of the history (oldest first), and titles of what the model may not know.

    Attributes:
        history: item keys, oldest first.
        history_titles: their titles: an item whose key is not known is found, or read, by its title.
    """

    history: History
    history_titles: Titles = None

    @model_validator(mode="after")
    def _one_entry_an_item(self) -> Self:
        """Lists beside the history have its length."""
        for name in ("history_titles", "history_ratings"):
            values = getattr(self, name, None)
            empty_titles = name == "history_titles" and not values
            if values is not None and not empty_titles and len(values) != len(self.history):
                said = f"{len(values)} {name} for {len(self.history)} items in history"
                raise PydanticCustomError("length", "{said}", {"said": said})
        return self


@dataclass(frozen=True, config=STRICT, kw_only=True)
class RecommendationRow(RequestRow):
    """A request for recommendations.

    Attributes:
        candidates: item keys that the list is made of; ``None``: the whole catalogue.
        exclude_items: item keys that the list must not hold (out of stock, already shown).
    """

    candidates: ItemKeys = None
    exclude_items: ItemKeys = None


@dataclass(frozen=True, config=STRICT, kw_only=True)
class RatingRow(RequestRow):
    """A request for a predicted rating.

    Attributes:
        history_ratings: stars of each item of the history, 0 to 5.
        target: item key of which the rating is predicted.
    """

    history_ratings: Ratings
    target: Text


@dataclass(frozen=True, config=STRICT)
class Parameters:
    """How many items are wanted, and whether those of the history are left out."""

    k: Annotated[int, BeforeValidator(_as_whole), Field(ge=1, le=MAX_K)] = DEFAULT_K
    exclude_history: Annotated[bool, BeforeValidator(_as_truth)] = True


@dataclasses.dataclass(frozen=True)
class RecommendationAnswer:
    """Recommendations for one user, best first; the columns of the contract."""

    item_keys: list[str] = dataclasses.field(default_factory=list)
    titles: list[str] = dataclasses.field(default_factory=list)
    scores: list[float] = dataclasses.field(default_factory=list)
    unknown_items: int = 0
    fallback: bool = False


_EXPECTED = {
    "k": f"a whole number from 1 to {MAX_K}",
    "exclude_history": "true or false",
    "target": "an item key",
    "history_ratings": "a list of numbers",
}
"""What a field takes, where it is not a list of item keys."""


def parse_parameters(values: Mapping[str, Any] | None, *, exclude_history: bool = True) -> Parameters:
    """Check ``k`` and ``exclude_history``; absent ones take their default.

    Args:
        values: of the request.
        exclude_history: default, as the model was evaluated.
    """
    given = {"exclude_history": exclude_history, **(values or {})}
    unknown = sorted(set(given) - {"k", "exclude_history"})
    if unknown:
        raise BadRequest(f"params: no parameter {_shown(unknown[0])}; there are k and exclude_history")
    return _validated(Parameters, given, "params")


def parse_rows(records: Iterable[Mapping[Any, Any]], *, rating: bool = False) -> list[Any]:
    """Check a batch of records.

    Args:
        records: one mapping a user.
        rating: the model predicts ratings: ``history_ratings`` and ``target`` are required.

    Returns:
        One :class:`RatingRow` a record where ``rating``, else one :class:`RecommendationRow`.
    """
    cls = RatingRow if rating else RecommendationRow
    known = {item.name for item in dataclasses.fields(cls)}
    rows = []
    for number, record in enumerate(records):
        where = f"row {number}"
        if number == MAX_ROWS:
            raise BadRequest(f"more than {MAX_ROWS} rows in one request; send several")
        if not isinstance(record, Mapping):
            raise BadRequest(f"{where} is {_shown(record)}, expected an object with the field 'history'")
        unknown = sorted(str(name) for name in record if name not in known)
        if unknown:
            raise BadRequest(f"{where}: no field {_shown(unknown[0])}; there are {', '.join(sorted(known))}")
        rows.append(_validated(cls, record, where))
    return rows


def _validated(cls: type[Any], values: Mapping[Any, Any], where: str) -> Any:
    """An instance of ``cls``, or its first fault as one line."""
    try:
        return cls(**values)
    except ValidationError as error:
        raise BadRequest(_reason(error.errors(include_url=False)[0], where)) from None


def _reason(details: ErrorDetails, where: str) -> str:
    """One fault that pydantic found, by row, field and value, with what is expected."""
    kind, value, path = details["type"], details["input"], details["loc"]
    if kind == "length":
        return f"{where}: {details['msg']}"
    name = str(path[0])
    if kind == "missing":
        if name == "history":
            return f"{where}: the field 'history' is missing; an empty history is []"
        value = None
    if kind == "too_long":
        found, most = details["ctx"]["actual_length"], details["ctx"]["max_length"]
        return f"{where}.{name} has {found} entries, at most {most} are taken"
    if len(path) == 1:
        return f"{where}.{name} is {_shown(value)}, expected {_EXPECTED.get(name, 'a list of item keys')}"
    if kind == "string_too_long":
        return f"{where}.{name} has a text of {len(value)} characters, at most {MAX_TEXT} are taken"
    expected = "numbers from 0 to 5" if name == "history_ratings" else "text"
    return f"{where}.{name} has {_shown(value)}, expected {expected}"


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # more digits than Python turns into text
        text = f"a number of {value.bit_length()} bits"
    return text if len(text) <= 80 else text[:77] + "…"
