"""A rating model as it is served: a rated history and a target go in, a rating with reasoning comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from latentrec.core import UserError
from latentrec.models.model_dir import read_model
from latentrec.prompts.rating_examples import HistoryEntry, RatingExample

if TYPE_CHECKING:
    from latentrec.catalog import Catalogue
    from latentrec.models.rating.text_predictor import TextRatingPredictor


@dataclass(frozen=True)
class ServedRating:
    """One answer.

    Attributes:
        rating: on the scale; the fallback where the model's answer could not be read. reasoning: the
        three analyses; the raw answer where it could not be read. fallback: whether ``rating`` is the
        mean of the history's ratings (or the global mean) and not the model's. unknown_items: history
        items, and the target, that are in no catalogue and came without a title.
    """

    rating: float
    reasoning: str
    fallback: bool
    unknown_items: int


class ServedRatingPredictor:
    """Predicts ratings for users that need not be in the training data.

    The user's mean is that of the ratings given with the request; the item's mean is the training-period mean
    stored with the model.
    """

    def __init__(self, predictor: TextRatingPredictor, items: Any, global_mean: float):
        self.predictor = predictor
        self.global_mean = global_mean
        keys = items["item_key"].to_pylist()
        self._index = {key: position for position, key in enumerate(keys)}
        self._titles: list[str] = items["title"].to_pylist()
        names = items.column_names
        self._means = (
            items["train_mean_rating"].to_pylist() if "train_mean_rating" in names else [None] * len(keys)
        )
        self._descriptions = (
            items["description"].to_pylist() if "description" in names else [None] * len(keys)
        )

    def predict(
        self,
        history: Sequence[str],
        history_ratings: Sequence[float],
        target: str,
        *,
        history_titles: Sequence[str] | None = None,
        target_title: str | None = None,
    ) -> ServedRating:
        """One prediction; see :meth:`predict_batch`."""
        return self.predict_batch(
            [history],
            [history_ratings],
            [target],
            history_titles=[history_titles] if history_titles is not None else None,
            target_titles=[target_title] if target_title is not None else None,
        )[0]

    def predict_batch(
        self,
        histories: Sequence[Sequence[str]],
        history_ratings: Sequence[Sequence[float]],
        targets: Sequence[str],
        *,
        history_titles: Sequence[Sequence[str] | None] | None = None,
        target_titles: Sequence[str | None] | None = None,
        batch_size: int = 64,
    ) -> list[ServedRating]:
        """Ratings of ``targets`` (item keys) by users with these histories (item keys, oldest first).

        Items that the model does not know are read by the title given with the request; without one a history
        item is skipped and a target is named by its key.

        Raises:
            UserError: a history and its ratings differ in length, or a rating is off the scale.
        """
        examples, unknown = [], []
        for row, (keys, ratings, target) in enumerate(zip(histories, history_ratings, targets, strict=True)):
            titles = history_titles[row] if history_titles is not None else None
            target_title = target_titles[row] if target_titles is not None else None
            example, missing = self._example(row, keys, ratings, target, titles, target_title)
            examples.append(example)
            unknown.append(missing)
        answers = self.predictor.predict(examples, batch_size=batch_size)
        return [
            ServedRating(
                rating=self._fallback(example) if answer.fault else answer.rating,
                reasoning=answer.reasoning,
                fallback=answer.fault is not None,
                unknown_items=missing,
            )
            for example, answer, missing in zip(examples, answers, unknown, strict=True)
        ]

    def _example(
        self,
        row: int,
        keys: Sequence[str],
        ratings: Sequence[float],
        target: str,
        titles: Sequence[str] | None,
        target_title: str | None,
    ) -> tuple[RatingExample, int]:
        scale = self.predictor.prompt.scale
        if len(keys) != len(ratings):
            raise UserError(
                f"row {row}: 'history' has {len(keys)} items, 'history_ratings' {len(ratings)}; give one each"
            )
        for rating in ratings:
            if not scale.low <= float(rating) <= scale.high:
                raise UserError(
                    f"row {row}: 'history_ratings' holds {rating}; it is {scale.low:g} to {scale.high:g}"
                )
        entries, unknown = [], 0
        for position, (key, rating) in enumerate(zip(keys, ratings, strict=True)):
            known = self._index.get(key)
            title = self._titles[known] if known is not None else (titles[position] if titles else None)
            if title:
                entries.append(HistoryEntry(title, float(rating)))
            else:
                unknown += 1
        known = self._index.get(target)
        unknown += known is None and not target_title
        return (
            RatingExample(
                history=tuple(entries),
                title=self._titles[known] if known is not None else target_title or target,
                description=(self._descriptions[known] or "") if known is not None else "",
                user_mean=float(np.mean([float(rating) for rating in ratings])) if len(ratings) else None,
                item_mean=self._means[known] if known is not None else None,
            ),
            int(unknown),
        )

    def _fallback(self, example: RatingExample) -> float:
        return self.global_mean if example.user_mean is None else example.user_mean


def load_rating_predictor(model_dir: str | Path, catalogue: Catalogue | None = None) -> ServedRatingPredictor:
    """Load a trained rating model for serving.

    Args:
        model_dir: model directory of ``rating-grpo`` or ``cold-start-sft``.
        catalogue: today's; it only has to hold the items asked for, whose training means are read from the
            model directory. ``None``: the model's own.

    Raises:
        UserError: it is no rating model.
    """
    import pyarrow as pa

    from latentrec.models.rating.text_predictor import TextRatingPredictor

    info, _ = read_model(model_dir)
    predictor = TextRatingPredictor.load(model_dir)
    items = pq.read_table(Path(model_dir) / "items.parquet")
    if catalogue is not None:
        means = dict(zip(items["item_key"].to_pylist(), items["train_mean_rating"].to_pylist(), strict=True))
        items = pa.table(
            {
                "item_key": catalogue.item_keys,
                "title": catalogue.titles,
                "train_mean_rating": pa.array([means.get(key) for key in catalogue.item_keys], pa.float32()),
            }
        )
    return ServedRatingPredictor(predictor, items, float(info.architecture["global_mean"]))
