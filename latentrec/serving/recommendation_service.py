"""Answers requests with a recommender: unknown items, fallback, batching of concurrent callers, warm-up.

Independent of MLflow: the pyfunc (``pyfunc_model.py``) wraps it.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from latentrec.catalog import MIN_OVERLAP, Catalogue
from latentrec.core import UserError
from latentrec.core.process import LOADING_FREED, trim_heap
from latentrec.decoding import DecodingOptions, load_recommender
from latentrec.models import Recommender
from latentrec.serving.request_schemas import Parameters, RecommendationAnswer, RecommendationRow

MAX_BATCH = 32
MAX_MODEL_HISTORY = 200


@dataclass(frozen=True)
class ServingModel:
    """A recommender with the catalogue that it ranks; replaced as one when the catalogue changes.

    Attributes:
        recommender, catalogue: what is served.
        options: how it was evaluated; ``exclude_history`` is the default of requests.
        key_index, title_index: item id by key, and of the most popular item by title.
        popular: item ids by training interactions.
        vanished_titles: titles, by key, of items that the model was trained with and that the catalogue no
            longer has; read by title models.
    """

    recommender: Recommender
    catalogue: Catalogue
    options: DecodingOptions
    key_index: dict[str, int]
    title_index: dict[str, int]
    popular: np.ndarray
    vanished_titles: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        recommender: Recommender,
        catalogue: Catalogue,
        options: DecodingOptions | None = None,
        own: Catalogue | None = None,
    ) -> ServingModel:
        """Index a catalogue for serving; ``own`` is the catalogue that the version was registered with."""
        popular = np.argsort(-catalogue.train_counts, kind="stable")
        keys = {key: item for item, key in enumerate(catalogue.item_keys)}
        gone = {} if own is None else dict(zip(own.item_keys, own.titles, strict=True))
        return cls(
            recommender,
            catalogue,
            options or DecodingOptions(),
            keys,
            {catalogue.titles[item]: int(item) for item in popular[::-1]},
            popular,
            {key: title for key, title in gone.items() if key not in keys},
        )

    @classmethod
    def load(
        cls,
        model_dir: str | Path,
        catalogue_path: str | Path,
        options: DecodingOptions | None = None,
        assistant_dir: str | Path | None = None,
        *,
        own_path: str | Path | None = None,
    ) -> ServingModel:
        """Load a model directory over a catalogue, its own or a newer one.

        Args:
            model_dir: the model.
            catalogue_path: ``items.parquet`` that is ranked.
            options: how it was evaluated.
            assistant_dir: of a mixture.
            own_path: catalogue that the version was registered with, where another is served.

        Raises:
            UserError: a file is not what it should be, or the catalogue has too little in common with the
                version's own.
        """
        catalogue, options = Catalogue.read(catalogue_path), options or DecodingOptions()
        own = Catalogue.read(own_path) if own_path is not None else None
        if own is not None:
            require_overlap(own, catalogue)
        recommender = load_recommender(model_dir, catalogue, options, assistant_dir=assistant_dir)
        trim_heap(LOADING_FREED)
        return cls.of(recommender, catalogue, options, own)

    @property
    def reads_titles(self) -> bool:
        """Whether the model reads titles of items that the catalogue does not have."""
        return bool(getattr(self.recommender, "reads_titles", False))


def require_overlap(older: Catalogue, newer: Catalogue) -> None:
    """Refuse a catalogue in which most items of the older one are gone: a broken export, another shop's.

    Raises:
        UserError: fewer than half of the older catalogue's items are left.
    """
    kept = older.kept_by(newer)
    if kept < MIN_OVERLAP:
        raise UserError(
            f"the catalogue has {newer.n_items:,} items and only {kept:.0%} of the {older.n_items:,} items "
            f"of the one before, less than {MIN_OVERLAP:.0%}: is it complete, and of the same shop? "
            "Register the model with --catalogue to make this one the version's own",
            code="serving.catalogue_shrank",
        )


@dataclass
class _History:
    """A user's history as ids of a catalogue.

    Attributes:
        items: int32, ids of the known items, oldest first.
        titles: what a title model reads: of the known items and of vanished ones; ``None``: those of
            ``items``.
        unknown: entries that could not be used.
    """

    items: np.ndarray
    titles: list[str] | None
    unknown: int


@dataclass
class _Job:
    loaded: ServingModel
    history: _History
    row: RecommendationRow
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
        self._callers: queue.SimpleQueue[list[_Job]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="recommender", daemon=True).start()
        self.warm_up()

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue that is served at the moment."""
        return self._loaded.catalogue

    def replace(self, loaded: ServingModel) -> None:
        """Serve another catalogue (or model) from now on; requests under way finish on the old one."""
        self._loaded = loaded
        self.warm_up()

    def warm_up(self) -> None:
        """Rank once, so that the first user does not wait for lazy initialization."""
        loaded = self._loaded
        if loaded.catalogue.n_items:
            first = loaded.catalogue.item_keys[int(loaded.popular[0])]
            self.recommend([RecommendationRow([first])] * 2, Parameters())

    def recommend(self, rows: list[RecommendationRow], parameters: Parameters) -> list[RecommendationAnswer]:
        """Answer a batch of users; the order of the answers is that of the rows."""
        loaded = self._loaded
        found = [_known_history(row, loaded) for row in rows]
        waiting: list[Future[tuple[np.ndarray, np.ndarray]] | None] = []
        jobs: list[_Job] = []
        for row, history in zip(rows, found, strict=True):
            readable = bool(history.titles) if history.titles is not None else len(history.items) > 0
            if not readable or (
                history.titles is None and loaded.recommender.unscorable[history.items].all()
            ):
                waiting.append(None)
                continue
            job = _Job(loaded, history, row, parameters, Future())
            jobs.append(job)
            waiting.append(job.result)
        if jobs:
            self._callers.put(jobs)  # at once: which of them are ranked together is no matter of timing
        answers = []
        for row, history, result in zip(rows, found, waiting, strict=True):
            ranked = _popularity(row, history, parameters, loaded) if result is None else result.result()
            answers.append(_answer(*ranked, history.unknown, result is None, loaded))
        return answers

    def _work(self) -> None:
        waiting: list[_Job] = []
        while True:
            waiting = waiting or self._callers.get()
            while len(waiting) < self._max_batch:
                try:
                    waiting = waiting + self._callers.get_nowait()
                except queue.Empty:
                    break
            alike = itertools.takewhile(partial(_is_ranked_with, waiting[0]), waiting)
            jobs = list(itertools.islice(alike, self._max_batch))
            waiting = waiting[len(jobs) :]
            _rank(jobs)


def _is_ranked_with(first: _Job, other: _Job) -> bool:
    return other.parameters == first.parameters and other.loaded is first.loaded


def _rank(jobs: list[_Job]) -> None:
    parameters, loaded = jobs[0].parameters, jobs[0].loaded
    try:
        k = min(parameters.k, loaded.catalogue.n_items)
        left_out = [_left_out(job.row, job.history, parameters, loaded) for job in jobs]
        exclude = left_out if any(len(items) for items in left_out) else None
        histories = [job.history.items[-MAX_MODEL_HISTORY:] for job in jobs]
        more: dict[str, Any] = {}
        if any(job.history.titles is not None for job in jobs):
            more["history_titles"] = [_titles_of(job.history, loaded)[-MAX_MODEL_HISTORY:] for job in jobs]
        with _beams_for(loaded.recommender, k):
            ranking = loaded.recommender.rank(histories, k, exclude=exclude, **more)
        for number, job in enumerate(jobs):
            job.result.set_result((ranking.item_ids[number], ranking.scores[number]))
    except Exception as error:
        for job in jobs:
            if not job.result.done():
                job.result.set_exception(error)


def _left_out(
    row: RecommendationRow, history: _History, parameters: Parameters, loaded: ServingModel
) -> np.ndarray:
    """int32: items that a list must not hold: all that the user owns, what the request excludes, and
    everything but its candidates.
    """
    n_items = loaded.catalogue.n_items
    closed = np.zeros(n_items, bool)
    if row.candidates is not None:
        closed[:] = True
        closed[_ids_of(row.candidates, loaded)] = False
    if row.exclude_items:
        closed[_ids_of(row.exclude_items, loaded)] = True
    if parameters.exclude_history:
        closed[history.items] = True
    return np.flatnonzero(closed).astype(np.int32)


def _ids_of(keys: list[str], loaded: ServingModel) -> list[int]:
    """Item ids of the keys that the catalogue has."""
    return [loaded.key_index[key] for key in keys if key in loaded.key_index]


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


def _known_history(row: RecommendationRow, loaded: ServingModel) -> _History:
    """Each entry by its key, else by its title; a title model reads the title of what is neither.

    Titles of vanished items are those of the request, else those of the version's own catalogue.
    """
    items: list[int] = []
    shown: list[str] = []
    unknown = vanished = 0
    titles = row.history_titles or [""] * len(row.history)
    for key, title in zip(row.history, titles, strict=True):
        item = loaded.key_index.get(key)
        if item is None and title:
            item = loaded.title_index.get(title)
        if item is not None:
            items.append(item)
            shown.append(loaded.catalogue.titles[item])
            continue
        read = (title or loaded.vanished_titles.get(key, "")) if loaded.reads_titles else ""
        if read.strip():
            shown.append(read)
            vanished += 1
        else:
            unknown += 1
    return _History(np.array(items, np.int32), shown if vanished else None, unknown)


def _titles_of(history: _History, loaded: ServingModel) -> list[str]:
    if history.titles is not None:
        return history.titles
    return [loaded.catalogue.titles[item] for item in history.items]


def _popularity(
    row: RecommendationRow, history: _History, parameters: Parameters, loaded: ServingModel
) -> tuple[np.ndarray, np.ndarray]:
    """The most bought items that may stand in the list, and their share of all training interactions."""
    left_out = _left_out(row, history, parameters, loaded)
    ranked = loaded.popular[~np.isin(loaded.popular, left_out)] if len(left_out) else loaded.popular
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
