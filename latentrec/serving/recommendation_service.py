"""Answers requests with a recommender: unknown items, fallback, batching of concurrent callers, warm-up.

Knows nothing of MLflow: the pyfunc (``pyfunc_model.py``) wraps it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from latentrec.catalog import Catalogue
from latentrec.models import Recommender
from latentrec.serving.request_schemas import Parameters, RecommendationAnswer, RequestRow

MAX_BATCH = 32
MAX_MODEL_HISTORY = 200


@dataclass(frozen=True)
class ServingOptions:
    """How the model is decoded when it is served: as it was when it was judged.

    Attributes:
        beam_width: beams of a title model, or ``exact``.
        host: ``bigrec``, ``catalogue``, ``d3`` or ``d3-catalogue``.
        alpha: d3 hosts: weight of the language model.
    """

    beam_width: int | str = 10
    host: str = "bigrec"
    alpha: float = 0.9

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ServingOptions:
        """From an evaluation's configuration or a served model's; absent names take their default."""
        width = str(config.get("beam_width", 10))
        return cls(
            int(width) if width.isdigit() else width,
            str(config.get("host", "bigrec")),
            float(config.get("alpha", 0.9)),
        )

    def to_config(self) -> dict[str, Any]:
        """As a served model's configuration."""
        return {"beam_width": str(self.beam_width), "host": self.host, "alpha": self.alpha}


@dataclass(frozen=True)
class ServingModel:
    """A recommender with the catalogue that it ranks; replaced as one when the catalogue changes."""

    recommender: Recommender
    catalogue: Catalogue
    key_index: dict[str, int]
    title_index: dict[str, int]
    popular: np.ndarray

    @classmethod
    def of(cls, recommender: Recommender, catalogue: Catalogue) -> ServingModel:
        """Index a catalogue for serving; ``popular`` is its items by training interactions."""
        popular = np.argsort(-catalogue.train_counts, kind="stable")
        return cls(
            recommender,
            catalogue,
            {key: item for item, key in enumerate(catalogue.item_keys)},
            {catalogue.titles[item]: int(item) for item in popular[::-1]},
            popular,
        )

    @classmethod
    def load(
        cls,
        model_dir: str | Path,
        catalogue_path: str | Path,
        options: ServingOptions | None = None,
        assistant_dir: str | Path | None = None,
    ) -> ServingModel:
        """Load a model directory over a catalogue, its own or a newer one."""
        from latentrec.decoding import load_recommender

        catalogue, options = Catalogue.read(catalogue_path), options or ServingOptions()
        recommender = load_recommender(
            model_dir,
            catalogue,
            beam_width=options.beam_width,
            host=options.host,
            assistant_dir=assistant_dir,
            alpha=options.alpha,
        )
        return cls.of(recommender, catalogue)


@dataclass
class _Job:
    loaded: ServingModel
    history: np.ndarray
    parameters: Parameters
    result: Future[tuple[np.ndarray, np.ndarray]]


class RecommendationService:
    """Thread-safe recommendations: one thread runs the model, callers that wait together share a batch.

    Args:
        loaded: what to serve.
        max_batch: users ranked in one call of the model.
    """

    def __init__(self, loaded: ServingModel, max_batch: int = MAX_BATCH):
        self._loaded = loaded
        self._max_batch = max_batch
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="recommender", daemon=True).start()
        self.warm_up()

    def replace(self, loaded: ServingModel) -> None:
        """Serve another catalogue (or model) from now on; requests under way finish on the old one."""
        self._loaded = loaded
        self.warm_up()

    def warm_up(self) -> None:
        """Rank once, so that the first user does not wait for lazy initialisation."""
        loaded = self._loaded
        if loaded.catalogue.n_items:
            first = loaded.catalogue.item_keys[int(loaded.popular[0])]
            self.recommend([RequestRow([first])] * 2, Parameters())

    def recommend(self, rows: list[RequestRow], parameters: Parameters) -> list[RecommendationAnswer]:
        """Answer a batch of users; the order of the answers is that of the rows."""
        loaded = self._loaded
        found = [_known_items(row, loaded) for row in rows]
        waiting: list[Future[tuple[np.ndarray, np.ndarray]] | None] = []
        for items, _ in found:
            if not len(items) or loaded.recommender.unscorable[items].all():
                waiting.append(None)
                continue
            job = _Job(loaded, items[-MAX_MODEL_HISTORY:], parameters, Future())
            self._jobs.put(job)
            waiting.append(job.result)
        answers = []
        for (items, unknown), result in zip(found, waiting, strict=True):
            ranked = _popularity(items, parameters, loaded) if result is None else result.result()
            answers.append(_answer(*ranked, unknown, result is None, loaded))
        return answers

    def _work(self) -> None:
        held: _Job | None = None
        while True:
            jobs, held = [held or self._jobs.get()], None
            while len(jobs) < self._max_batch:
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if job.parameters != jobs[0].parameters or job.loaded is not jobs[0].loaded:
                    held = job
                    break
                jobs.append(job)
            _rank(jobs)


def _rank(jobs: list[_Job]) -> None:
    histories = [job.history for job in jobs]
    parameters, loaded = jobs[0].parameters, jobs[0].loaded
    try:
        k = min(parameters.k, loaded.catalogue.n_items)
        exclude = histories if parameters.exclude_history else None
        with _beams_for(loaded.recommender, k):
            ranking = loaded.recommender.rank(histories, k, exclude=exclude)
        for number, job in enumerate(jobs):
            job.result.set_result((ranking.item_ids[number], ranking.scores[number]))
    except Exception as error:
        for job in jobs:
            if not job.result.done():
                job.result.set_exception(error)


@contextmanager
def _beams_for(recommender: Any, k: int) -> Iterator[None]:
    """A title model lists no more titles than it has beams: widen the search for a longer list."""
    width = getattr(recommender, "beam_width", None)
    if not isinstance(width, int) or width >= k:
        yield
        return
    recommender.beam_width = k
    try:
        yield
    finally:
        recommender.beam_width = width


def _known_items(row: RequestRow, loaded: ServingModel) -> tuple[np.ndarray, int]:
    """Item ids of the history that the catalogue knows by key, or else by title; and how many it does not."""
    found = []
    titles = row.history_titles or [""] * len(row.history)
    for key, title in zip(row.history, titles, strict=True):
        item = loaded.key_index.get(key)
        if item is None and title:
            item = loaded.title_index.get(title)
        if item is not None:
            found.append(item)
    return np.array(found, np.int32), len(row.history) - len(found)


def _popularity(
    items: np.ndarray, parameters: Parameters, loaded: ServingModel
) -> tuple[np.ndarray, np.ndarray]:
    """The most bought items and their share of all training interactions."""
    ranked = loaded.popular
    if parameters.exclude_history and len(items):
        ranked = ranked[~np.isin(ranked, items)]
    ranked = ranked[: parameters.k]
    counts = loaded.catalogue.train_counts
    return ranked, counts[ranked] / max(int(counts.sum()), 1)


def _answer(
    items: np.ndarray, scores: np.ndarray, unknown: int, fallback: bool, loaded: ServingModel
) -> RecommendationAnswer:
    pairs = [(int(i), float(s)) for i, s in zip(items, scores, strict=True) if i >= 0 and np.isfinite(s)]
    return RecommendationAnswer(
        item_keys=[loaded.catalogue.item_keys[item] for item, _ in pairs],
        titles=[loaded.catalogue.titles[item] for item, _ in pairs],
        scores=[score for _, score in pairs],
        unknown_items=unknown,
        fallback=fallback,
    )
