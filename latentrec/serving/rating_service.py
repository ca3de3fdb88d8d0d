"""Answers rating requests with a model that reasons in text; independent of MLflow."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from latentrec.catalog import Catalogue
from latentrec.core import UserError
from latentrec.models import read_model
from latentrec.models.rating.text_predictor import TextRatingPredictor
from latentrec.prompts.rating_examples import HistoryEntry, RatingExample
from latentrec.serving.request_schemas import RatingRow

MAX_SHOWN = 50
MAX_BATCH = 32


@dataclass(frozen=True)
class RatingResponse:
    """The contract's columns: the predicted rating and the text that led to it."""

    rating: float
    reasoning: str


@dataclass(frozen=True)
class _Item:
    title: str
    description: str
    mean: float | None


def read_items(path: str | Path) -> dict[str, _Item]:
    """Items by key: titles, and where the catalogue has them descriptions and mean ratings.

    Raises:
        UserError: not a catalogue (:meth:`latentrec.catalog.Catalogue.read`), or a mean rating is no number.
    """
    catalogue = Catalogue.read(path)
    table = pq.read_table(path)
    if "item_id" in table.column_names:
        table = table.sort_by("item_id")  # the catalogue's order

    def column(name: str, kind: pa.DataType) -> list[Any]:
        if name not in table.column_names:
            return [None] * catalogue.n_items
        try:
            return table[name].cast(kind).to_pylist()
        except (ValueError, pa.ArrowNotImplementedError) as error:  # ArrowInvalid, UnicodeDecodeError
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{path}: column '{name}' is no {kind} ({reason})", code="catalog.bad_items"
            ) from None

    descriptions, means = column("description", pa.string()), column("train_mean_rating", pa.float64())
    return {
        key: _Item(title, description or "", mean if mean is not None and math.isfinite(mean) else None)
        for key, title, description, mean in zip(
            catalogue.item_keys, catalogue.titles, descriptions, means, strict=True
        )
    }


class RatingService:
    """Thread-safe rating predictions: one request generates at a time.

    Args:
        predictor: the model.
        items: the catalogue by item key.
        global_mean: mean rating of the training period, where nothing better is known.
    """

    def __init__(self, predictor: TextRatingPredictor, items: dict[str, _Item], global_mean: float):
        self._predictor, self._items, self._global_mean = predictor, items, global_mean
        self._lock = threading.Lock()

    @classmethod
    def load(cls, model_dir: str | Path, catalogue_path: str | Path) -> RatingService:
        """Load a rating model and its catalogue (titles; descriptions and mean ratings where it has them)."""
        info, _ = read_model(model_dir)
        items = read_items(catalogue_path)
        global_mean = float(info.architecture["global_mean"])
        return cls(TextRatingPredictor.load(model_dir), items, global_mean)

    def rate(self, rows: list[RatingRow]) -> list[RatingResponse]:
        """Rate each row's target.

        A target that the catalogue does not know, and an answer of the model that is no valid rating, get
        the mean of the user's own ratings (the training period's where there are none); ``reasoning`` says
        so.
        """
        known = [number for number, row in enumerate(rows) if row.target in self._items]
        with self._lock:
            predictions = self._predictor.predict(
                [self._example(rows[number]) for number in known], batch_size=MAX_BATCH
            )
        answers = [
            RatingResponse(
                self._placeholder(row), f"The catalogue has no item {row.target!r}: the user's mean."
            )
            for row in rows
        ]
        for number, prediction in zip(known, predictions, strict=True):
            rating, reasoning = prediction.rating, prediction.reasoning
            if math.isnan(rating):
                rating = self._placeholder(rows[number])
                reasoning = f"No valid rating in the model's answer ({prediction.fault}): the user's mean."
            answers[number] = RatingResponse(float(rating), reasoning)
        return answers

    def _example(self, row: RatingRow) -> RatingExample:
        target = self._items[row.target]
        ratings = row.history_ratings
        titles = row.history_titles or [""] * len(row.history)
        entries = []
        for key, title, rating in zip(row.history, titles, ratings, strict=True):
            item = self._items.get(key)
            shown = item.title if item is not None else title
            if shown:
                entries.append(HistoryEntry(shown, rating))
        return RatingExample(
            history=tuple(entries[-MAX_SHOWN:]),
            title=target.title,
            description=target.description,
            user_mean=sum(ratings) / len(ratings) if ratings else None,
            item_mean=target.mean,
        )

    def _placeholder(self, row: RatingRow) -> float:
        ratings = row.history_ratings
        return sum(ratings) / len(ratings) if ratings else self._global_mean
