"""What the page shows side by side: the champion, the SASRec of its run, the previous champion."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from examples.demo.why import item_vectors, latent_attention, nearest
from latentrec.core import UserError
from latentrec.decoding import DecodingOptions
from latentrec.registry.model_registry import CHAMPION, PREVIOUS, RegisteredVersion, Registry
from latentrec.serving.rating_service import RatingService
from latentrec.serving.recommendation_service import RecommendationService, ServingModel
from latentrec.serving.request_schemas import RATING_SYSTEMS, Parameters, RatingRow, RecommendationRow


@dataclass(frozen=True)
class Suggestion:
    """One recommended item, and the items of the history that are nearest to it (title, cosine)."""

    title: str
    score: float
    why: list[tuple[str, float]]


@dataclass(frozen=True)
class Shown:
    """What one model answered: its list, how long it took, where LatentRATT looked."""

    items: list[Suggestion]
    milliseconds: float
    fallback: bool
    attention: list[tuple[str, float]] | None


class Contender:
    """A recommender of the page, served exactly as the registry serves it."""

    def __init__(self, role: str, detail: str, loaded: ServingModel):
        self.role, self.detail, self.loaded = role, detail, loaded
        self._service = RecommendationService(loaded)
        self._vectors = item_vectors(loaded.recommender)

    def recommend(self, history: Sequence[str], k: int) -> Shown:
        """The k best items after a history of item keys, oldest first."""
        begin = time.perf_counter()
        answer = self._service.recommend([RecommendationRow(list(history))], Parameters(k=k))[0]
        milliseconds = 1000 * (time.perf_counter() - begin)
        index, titles = self.loaded.key_index, self.loaded.catalogue.titles
        known = [index[key] for key in history if key in index]
        items = []
        for key, title, score in zip(answer.item_keys, answer.titles, answer.scores, strict=True):
            why: list[tuple[str, float]] = []
            if self._vectors is not None and known and not answer.fallback:
                why = [(titles[item], cosine) for item, cosine in nearest(self._vectors, index[key], known)]
            items.append(Suggestion(title, score, why))
        attention = (
            latent_attention(self.loaded.recommender, known) if known and not answer.fallback else None
        )
        return Shown(items, milliseconds, answer.fallback, attention)


@dataclass
class Rater:
    """A rating model of the page."""

    role: str
    detail: str
    service: RatingService


@dataclass
class Stage:
    """Everything that the page needs.

    Attributes:
        name: of the registered model.
        system: its system.
        titles: title of every item by its key, most bought first.
        contenders: recommenders, the model asked for first; empty for a rating model.
        raters: rating models; empty for a recommender.
        missing: what could not be shown, and why.
    """

    name: str
    system: str
    titles: dict[str, str]
    contenders: list[Contender] = field(default_factory=list)
    raters: list[Rater] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def search(self, text: str, limit: int = 8) -> list[tuple[str, str]]:
        """(title, key) of items whose title holds every word of ``text``, most bought first."""
        words = text.casefold().split()
        found = [
            (title, key)
            for key, title in self.titles.items()
            if words and all(word in title.casefold() for word in words)
        ]
        return found[:limit]


def load_stage(uri: str) -> Stage:
    """Load a registered model, the SASRec that was registered with it, and the previous champion.

    Raises:
        UserError: nothing is registered at ``uri``.
    """
    registry = Registry()
    model = registry.resolve(uri)
    folder = Path(tempfile.mkdtemp(prefix="latentrec-demo-"))
    catalogue_path = registry.download(model, "catalogue", folder / "first")
    stage = Stage(model.name, model.tags.get("model.system", ""), _titles(catalogue_path))
    previous = registry.by_alias(model.name, PREVIOUS)
    if previous is not None and previous.version == model.version:
        previous = None
    role = next((alias for alias in (CHAMPION, *model.aliases) if alias in model.aliases), "model")
    entries = [(role, model), *([("previous champion", previous)] if previous else [])]
    if previous is None:
        stage.missing.append(f"No previous champion of {model.name} yet: a second promotion makes one.")
    for number, (shown, version) in enumerate(entries):
        files = folder / str(number)
        if stage.system in RATING_SYSTEMS:
            stage.raters.append(Rater(shown, version.uri, _rater(registry, version, files)))
        else:
            stage.contenders.append(_contender(registry, version, shown, files))
    if stage.contenders:
        _add_baseline(stage, registry, model, folder / "baseline")
    return stage


def _titles(catalogue_path: Path) -> dict[str, str]:
    from latentrec.catalog import Catalogue

    catalogue = Catalogue.read(catalogue_path)
    order = np.argsort(-catalogue.train_counts, kind="stable")
    return {catalogue.item_keys[item]: catalogue.titles[item] for item in order}


def _contender(registry: Registry, version: RegisteredVersion, role: str, folder: Path) -> Contender:
    artifacts = registry.artifacts(version)
    assistant = registry.download(version, "assistant", folder) if "assistant" in artifacts else None
    loaded = ServingModel.load(
        registry.download(version, "model", folder),
        registry.download(version, "catalogue", folder),
        DecodingOptions.from_config(registry.config(version)),
        assistant,
    )
    return Contender(role, version.uri, loaded)


def _rater(registry: Registry, version: RegisteredVersion, folder: Path) -> RatingService:
    return RatingService.load(
        registry.download(version, "model", folder), registry.download(version, "catalogue", folder)
    )


def _add_baseline(stage: Stage, registry: Registry, model: RegisteredVersion, folder: Path) -> None:
    """The SASRec of the same pipeline run, second in the row."""
    held = [part for part in ("baseline", "assistant") if part in registry.artifacts(model)]
    if not held:
        stage.missing.append(f"No SASRec was registered with {model.uri}.")
        return
    loaded = ServingModel.load(
        registry.download(model, held[0], folder), registry.download(model, "catalogue", folder)
    )
    stage.contenders.insert(1, Contender("SASRec", f"baseline of the run of {model.uri}", loaded))


def rate(rater: Rater, history: Sequence[str], ratings: Sequence[float], target: str) -> tuple[Any, float]:
    """(answer, milliseconds) of a rating model for ``target`` after rated items, oldest first."""
    begin = time.perf_counter()
    row = RatingRow(list(history), history_ratings=list(ratings), target=target)
    answer = rater.service.rate([row])[0]
    return answer, 1000 * (time.perf_counter() - begin)


def check_history(history: Sequence[str], known: dict[str, str]) -> None:
    """Refuse keys that the catalogue does not have.

    Raises:
        UserError: naming the first.
    """
    for key in history:
        if key not in known:
            raise UserError(f"the catalogue has no item {key!r}")
