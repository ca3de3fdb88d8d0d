"""Answers rating requests with a model that reasons in text; knows nothing of MLflow."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from latentrec.catalog import Catalogue
from latentrec.core import UserError
from latentrec.models.rating import ServedRating, ServedRatingPredictor, load_rating_predictor
from latentrec.tracking.requests import BadRequest, Row

MAX_BATCH = 32
MAX_SHOWN = 50


@dataclass
class RatingService:
    """Thread-safe rating predictions: one request generates at a time.

    Attributes:
        predictor: the model; it need not be thread-safe.
    """

    predictor: ServedRatingPredictor

    def __post_init__(self) -> None:
        """One lock for the model."""
        self._lock = threading.Lock()

    @classmethod
    def load(cls, model_dir: str | Path, catalogue_path: str | Path | None = None) -> RatingService:
        """Load a rating model over its own catalogue, or over a newer one."""
        newer = Catalogue.read(catalogue_path) if catalogue_path else None
        return cls(load_rating_predictor(model_dir, newer))

    def rate(self, rows: list[Row]) -> list[ServedRating]:
        """Rate each row's target after the latest of its history.

        Raises:
            BadRequest: a rating is off the model's scale.
        """
        with self._lock:
            try:
                return self.predictor.predict_batch(
                    [row.history[-MAX_SHOWN:] for row in rows],
                    [(row.history_ratings or [])[-MAX_SHOWN:] for row in rows],
                    [row.target or "" for row in rows],
                    history_titles=[(row.history_titles or [])[-MAX_SHOWN:] or None for row in rows],
                    batch_size=MAX_BATCH,
                )
            except UserError as error:
                raise BadRequest(str(error)) from None
