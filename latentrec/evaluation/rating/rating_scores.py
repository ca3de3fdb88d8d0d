"""Scoring of rating models and baselines on the same samples."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latentrec.core import UserError
from latentrec.data import of_users_at_most
from latentrec.metrics import ClusterBootstrap, Interval
from latentrec.metrics.rating import RatingErrors, rating_errors
from latentrec.models.rating.baselines import (
    BiasModel,
    GlobalMean,
    GlobalMedian,
    ItemMean,
    RatingBaseline,
    RatingTriples,
    UserMean,
)
from latentrec.models.rating.matrix_factorization import MatrixFactorization
from latentrec.models.rating.text_predictor import TextRatingPredictor
from latentrec.prompts.rating_examples import RatingExample, RatingTask

TRIVIAL = ("global mean", "global median", "user mean", "item mean", "user + item bias")
"""Constants and biases: what the gate asks a model to exceed and not only to equal."""
METRICS = ("mae", "rmse", "unparsable_rate", "accuracy", "tokens_per_prediction", "seconds_per_prediction")


@dataclass(frozen=True)
class RatingScores:
    """What one model predicted.

    Attributes:
        name: for tables.
        predicted: float64 (S,), NaN where an answer could not be read.
        errors: per-sample errors, the user's mean standing in where there is no prediction.
        texts, faults: of a language model; empty text and ``None`` of a baseline.
        tokens: int64 (S, 2), read and written; 0 of a baseline.
        seconds: float64 (S,), wall time a prediction, in batches.
    """

    name: str
    predicted: np.ndarray
    errors: RatingErrors
    texts: list[str]
    faults: list[str | None]
    tokens: np.ndarray
    seconds: np.ndarray

    def metrics(self, bootstrap: ClusterBootstrap) -> dict[str, Interval]:
        """Every metric with its 95 % interval, users resampled."""
        columns = np.column_stack(
            [
                self.errors.absolute,
                self.errors.squared,
                self.errors.unparsable,
                self.errors.exact,
                self.tokens.sum(axis=1),
                self.seconds,
            ]
        )
        table = dict(zip(METRICS, bootstrap.intervals(columns), strict=True))
        squared = table["rmse"]
        table["rmse"] = Interval(*(float(np.sqrt(v)) for v in (squared.value, squared.low, squared.high)))
        read = ~np.isnan(self.predicted)
        if read.any() and not read.all():
            mae = float(self.errors.absolute[read].mean())
            table["mae_of_readable"] = Interval(mae, mae, mae)
        return table


def strongest_trivial(scores: Sequence[RatingScores]) -> str:
    """Name of the constant or bias model with the smallest mean absolute error."""
    return min(
        (score for score in scores if score.name in TRIVIAL), key=lambda score: score.errors.absolute.mean()
    ).name


def training_triples(task: RatingTask, split: str = "train") -> RatingTriples:
    """The ratings of the training period, or of another split's targets."""
    if split == "train":
        rows = task.train_rows()
    else:
        rows = np.array([example.row for example in task.examples(split)], np.int64)
    users, items, ratings = task.ratings_of(rows)
    return RatingTriples(users, items, ratings, task.dataset.n_users, task.dataset.n_items)


def score_baselines(
    task: RatingTask, examples: list[RatingExample], *, seed: int, split: str
) -> list[RatingScores]:
    """All baselines, the floor among them; matrix factorization chooses its rounds on validation.

    Where the validation split itself is evaluated, it runs all its rounds.
    """
    train = training_triples(task)
    held = training_triples(task, "valid") if split != "valid" else None
    models: list[RatingBaseline] = [
        GlobalMean(),
        GlobalMedian(),
        UserMean(),
        ItemMean(),
        BiasModel(),
        MatrixFactorization(validation=held, seed=seed),
    ]
    users = np.array([example.user_id for example in examples])
    items = np.array([example.target for example in examples])
    truth = np.array([example.rating for example in examples])
    fallback = user_means(task, examples)
    scores = []
    for model in models:
        model.fit(train)
        start = time.perf_counter()
        predicted = np.asarray(model.predict(users, items), np.float64)
        seconds = (time.perf_counter() - start) / len(examples)
        scores.append(
            RatingScores(
                name=model.name,
                predicted=predicted,
                errors=rating_errors(predicted, truth, fallback),
                texts=[""] * len(examples),
                faults=[None] * len(examples),
                tokens=np.zeros((len(examples), 2), np.int64),
                seconds=np.full(len(examples), seconds),
            )
        )
    return scores


def score_language_model(
    name: str, directory: str | Path, task: RatingTask, examples: list[RatingExample], *, batch_size: int
) -> RatingScores:
    """Answer every example greedily.

    Raises:
        UserError: the directory is no rating model.
    """
    predictor = TextRatingPredictor.load(directory)
    answers = predictor.predict(examples, batch_size=batch_size)
    predicted = np.array([answer.rating for answer in answers])
    truth = np.array([example.rating for example in examples])
    return RatingScores(
        name=name,
        predicted=predicted,
        errors=rating_errors(predicted, truth, user_means(task, examples)),
        texts=[answer.text for answer in answers],
        faults=[answer.fault for answer in answers],
        tokens=np.array([[answer.prompt_tokens, answer.completion_tokens] for answer in answers]),
        seconds=np.array([answer.seconds for answer in answers]),
    )


def user_means(task: RatingTask, examples: list[RatingExample]) -> np.ndarray:
    """float64 (S,): each user's training-period mean, the global mean where there is none.

    These are the predictions of the baseline :class:`UserMean`, bit for bit: a model whose answers cannot be
    read has exactly the baseline's error.
    """
    model = UserMean()
    model.fit(training_triples(task))
    users = np.array([example.user_id for example in examples])
    return np.asarray(model.predict(users, users), np.float64)


def chosen_examples(task: RatingTask, split: str, *, max_users: int | None, seed: int) -> list[RatingExample]:
    """Samples of a split, or those of a seeded subset of its users.

    Raises:
        UserError: nothing is left to evaluate on.
    """
    examples = task.examples(split)
    kept = of_users_at_most(np.array([example.user_id for example in examples]), max_users, seed)
    examples = [example for example, chosen in zip(examples, kept, strict=True) if chosen]
    if not examples:
        raise UserError(
            f"{task.dataset.directory}: the {split} split has no samples to evaluate on",
            code="evaluation.no_samples",
        )
    return examples
