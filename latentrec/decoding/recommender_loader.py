"""Any model directory as a :class:`~latentrec.models.Recommender` over today's catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from latentrec.catalog import Catalogue
from latentrec.core import UserError
from latentrec.decoding.options import DecodingOptions
from latentrec.models import Recommender, read_model


class Loader(Protocol):
    """Loads one kind of model directory."""

    def __call__(
        self,
        directory: Path,
        catalogue: Catalogue,
        *,
        options: DecodingOptions,
        name: str | None,
        assistant_dir: Path | None,
    ) -> Recommender:
        """Arguments as of :func:`load_recommender`."""
        ...


def _titles(
    directory: Path,
    catalogue: Catalogue,
    *,
    options: DecodingOptions,
    name: str | None,
    assistant_dir: Path | None,
) -> Recommender:
    from latentrec.decoding.title_recommender import TitleRecommender

    assistant = None
    if options.is_mixture and assistant_dir is not None:
        assistant = load_recommender(assistant_dir, catalogue)
    return TitleRecommender.load(directory, catalogue, name=name, options=options, assistant=assistant)


def _sequential(directory: Path, catalogue: Catalogue, *, name: str | None, **_: object) -> Recommender:
    from latentrec.models.sequential import SequentialRecommender

    return SequentialRecommender.load(directory, catalogue, name=name)


def _popularity(directory: Path, catalogue: Catalogue, *, name: str | None, **_: object) -> Recommender:
    from latentrec.models.popularity import Popularity

    return Popularity.load(directory, catalogue, name=name)


LOADERS: dict[str, Loader] = {
    "latentr3": _titles,
    "popularity": _popularity,
    "sasrec": _sequential,
    "gru4rec": _sequential,
    "caser": _sequential,
    "lares": _sequential,
}
"""``model.json``'s ``system`` → loader. A new recommender is one line here."""


def load_recommender(
    model_dir: str | Path,
    catalogue: Catalogue,
    options: DecodingOptions | None = None,
    *,
    name: str | None = None,
    assistant_dir: str | Path | None = None,
) -> Recommender:
    """Load a trained model to rank the items of ``catalogue``, which may be newer than the model.

    Args:
        model_dir: the model directory.
        catalogue: whose items are ranked.
        options: how title models are decoded.
        name: for tables; default: the model's system.
        assistant_dir: mixtures with α below 1: model directory of the ID-based assistant.

    Raises:
        UserError: not a finished model directory, of a system that does not rank items, or a mixture
            without its assistant.
    """
    info, _ = read_model(model_dir)
    loader = LOADERS.get(info.system)
    if loader is None:
        raise UserError(
            f"{model_dir} holds a {info.system} model, which does not rank items; "
            f"recommenders are: {', '.join(sorted(LOADERS))}",
            code="model.other_kind",
        )
    return loader(
        Path(model_dir),
        catalogue,
        options=options or DecodingOptions(),
        name=name,
        assistant_dir=Path(assistant_dir) if assistant_dir is not None else None,
    )
