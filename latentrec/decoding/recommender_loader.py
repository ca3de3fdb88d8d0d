"""Any model directory as a :class:`~latentrec.models.Recommender` over today's catalogue."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from latentrec.catalog import Catalogue
from latentrec.core import UserError
from latentrec.decoding.options import ASSISTED, DecodingOptions
from latentrec.models import Recommender, read_model

Loader = Callable[[Path, Catalogue, DecodingOptions], Recommender]


def _titles(directory: Path, catalogue: Catalogue, options: DecodingOptions) -> Recommender:
    from latentrec.decoding.title_recommender import TitleRecommender

    assistant = None
    if options.host in ASSISTED:
        if options.assistant_dir is None:
            raise UserError(f"the {options.host} host needs an assistant model (a sasrec model directory)")
        assistant = load_recommender(options.assistant_dir, catalogue)
    return TitleRecommender.load(
        directory,
        catalogue,
        name=options.name,
        beam_width=options.beam_width,
        host=options.host,
        assistant=assistant,
        alpha=options.alpha,
    )


def _sequential(directory: Path, catalogue: Catalogue, options: DecodingOptions) -> Recommender:
    from latentrec.models.sequential import SequentialRecommender

    return SequentialRecommender.load(directory, catalogue, name=options.name)


def _popularity(directory: Path, catalogue: Catalogue, options: DecodingOptions) -> Recommender:
    from latentrec.models.popularity import Popularity

    return Popularity.load(directory, catalogue, name=options.name)


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
    *,
    name: str | None = None,
    beam_width: int | str = 10,
    host: str = "bigrec",
    assistant_dir: str | Path | None = None,
    alpha: float = 0.9,
) -> Recommender:
    """Load a trained model to rank the items of ``catalogue``, which may be newer than the model.

    Raises:
        UserError: not a finished model directory, or of a system that does not rank items.
    """
    info, _ = read_model(model_dir)
    loader = LOADERS.get(info.system)
    if loader is None:
        raise UserError(
            f"{model_dir} holds a {info.system} model, which does not rank items; "
            f"recommenders are: {', '.join(sorted(LOADERS))}"
        )
    options = DecodingOptions(
        name=name,
        beam_width=beam_width,
        host=host,
        assistant_dir=Path(assistant_dir) if assistant_dir is not None else None,
        alpha=alpha,
    )
    return loader(Path(model_dir), catalogue, options)
