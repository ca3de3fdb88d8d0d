"""What a user of the served model may send, checked before any model sees it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

MAX_ROWS = 1024
MAX_HISTORY = 1000
MAX_TEXT = 2000
MAX_K = 200
MAX_ITEM_LIST = 20_000
DEFAULT_K = 10
RATING_SYSTEMS = frozenset({"reczero", "recone"})


class BadRequest(ValueError):
    """The request is malformed; the message says which row and field, and what is expected."""


@dataclass(frozen=True)
class RequestRow:
    """One user: the item keys of the history (oldest first) and what else the request says.

    Attributes:
        history: item keys, oldest first.
        history_titles: their titles: an item whose key is not known is found, or read, by its title.
        history_ratings, target: rating models only.
        candidates: item keys that the list is made of; ``None``: the whole catalogue.
        exclude_items: item keys that the list must not hold (out of stock, already shown).
    """

    history: list[str]
    history_titles: list[str] | None = None
    history_ratings: list[float] | None = None
    target: str | None = None
    candidates: list[str] | None = None
    exclude_items: list[str] | None = None


@dataclass(frozen=True)
class Parameters:
    """How many items are wanted, and whether those of the history are left out."""

    k: int = DEFAULT_K
    exclude_history: bool = True


@dataclass(frozen=True)
class RecommendationAnswer:
    """Recommendations for one user, best first; the columns of the contract."""

    item_keys: list[str] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    unknown_items: int = 0
    fallback: bool = False


def parse_parameters(values: Mapping[str, Any] | None, *, exclude_history: bool = True) -> Parameters:
    """Check ``k`` and ``exclude_history``; absent ones take their default.

    Args:
        values: of the request.
        exclude_history: default, as the model was evaluated.
    """
    values = dict(values or {})
    unknown = sorted(set(values) - {"k", "exclude_history"})
    if unknown:
        raise BadRequest(f"params: no parameter {unknown[0]!r}; there are k and exclude_history")
    k = values.get("k", DEFAULT_K)
    if isinstance(k, bool) or not _is_whole(k) or not 1 <= int(k) <= MAX_K:
        raise BadRequest(f"params.k is {_shown(k)}, expected a whole number from 1 to {MAX_K}")
    exclude = values.get("exclude_history", exclude_history)
    if not isinstance(exclude, bool) and type(exclude).__name__ not in ("bool_", "bool"):
        raise BadRequest(f"params.exclude_history is {_shown(exclude)}, expected true or false")
    return Parameters(int(k), bool(exclude))


def parse_rows(records: Iterable[Mapping[Any, Any]], *, rating: bool = False) -> list[RequestRow]:
    """Check a batch of records.

    Args:
        records: one mapping a user.
        rating: the model predicts ratings: ``history_ratings`` and ``target`` are required.
    """
    rows = []
    for number, record in enumerate(records):
        if number == MAX_ROWS:
            raise BadRequest(f"more than {MAX_ROWS} rows in one request; send several")
        rows.append(_parse_row(record, f"row {number}", rating))
    return rows


def _parse_row(record: Any, where: str, rating: bool) -> RequestRow:
    if not isinstance(record, Mapping):
        raise BadRequest(f"{where} is {_shown(record)}, expected an object with the field 'history'")
    known = {"history", "history_titles"} | (
        {"history_ratings", "target"} if rating else {"candidates", "exclude_items"}
    )
    unknown = sorted(str(name) for name in record if name not in known)
    if unknown:
        raise BadRequest(f"{where}: no field {_shown(unknown[0])}; there are {', '.join(sorted(known))}")
    if "history" not in record:
        raise BadRequest(f"{where}: the field 'history' is missing; an empty history is []")
    history = _texts(record["history"], f"{where}.history")
    titles = record.get("history_titles")
    if titles is not None and not _is_nan(titles):
        titles = _texts(titles, f"{where}.history_titles")
        if len(titles) not in (0, len(history)):
            raise BadRequest(f"{where}: {len(titles)} history_titles for {len(history)} items in history")
    else:
        titles = None
    if not rating:
        return RequestRow(
            history,
            titles or None,
            candidates=_optional_keys(record, "candidates", where),
            exclude_items=_optional_keys(record, "exclude_items", where),
        )
    ratings, target = _ratings(record, history, where), _target(record, where)
    return RequestRow(history, titles or None, history_ratings=ratings, target=target)


def _optional_keys(record: Mapping[str, Any], name: str, where: str) -> list[str] | None:
    """Item keys of an optional list; absent and null mean that nothing was asked."""
    value = record.get(name)
    if value is None or _is_nan(value):
        return None
    return _texts(value, f"{where}.{name}", MAX_ITEM_LIST)


def _ratings(record: Mapping[str, Any], history: list[str], where: str) -> list[float]:
    values = _listed(record.get("history_ratings"), f"{where}.history_ratings", "numbers")
    if len(values) != len(history):
        raise BadRequest(f"{where}: {len(values)} history_ratings for {len(history)} items in history")
    for value in values:
        # No float() before the comparison: 10^400 has none.
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= 5:  # type: ignore[operator]
            raise BadRequest(f"{where}.history_ratings has {_shown(value)}, expected numbers from 0 to 5")
    return [float(value) for value in values]


def _target(record: Mapping[str, Any], where: str) -> str:
    target = record.get("target")
    if not isinstance(target, str) or len(target) > MAX_TEXT:
        raise BadRequest(f"{where}.target is {_shown(target)}, expected an item key")
    return target


def _texts(value: Any, where: str, most: int = MAX_HISTORY) -> list[str]:
    items = _listed(value, where, "item keys")
    if len(items) > most:
        raise BadRequest(f"{where} has {len(items)} entries, at most {most} are taken")
    for item in items:
        if not isinstance(item, str):
            raise BadRequest(f"{where} has {_shown(item)}, expected text")
        if len(item) > MAX_TEXT:
            raise BadRequest(f"{where} has a text of {len(item)} characters, at most {MAX_TEXT} are taken")
    return [str(item) for item in items]


def _listed(value: Any, where: str, what: str) -> list[Any]:
    if hasattr(value, "tolist") and not isinstance(value, str | bytes):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise BadRequest(f"{where} is {_shown(value)}, expected a list of {what}")
    return list(value)


def _is_whole(value: Any) -> bool:
    try:
        return int(value) == value
    except (TypeError, ValueError, OverflowError):
        return False


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
