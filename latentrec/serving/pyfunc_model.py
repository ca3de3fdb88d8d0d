"""The served model, as MLflow runs it: a model from code, loaded from this file in the registered model."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from latentrec.catalog import Catalogue
from latentrec.core.settings import CATALOGUE_VARIABLE
from latentrec.decoding import DecodingOptions
from latentrec.models import read_model
from latentrec.serving.catalogue_source import CatalogueSource, watch
from latentrec.serving.recommendation_service import RecommendationService, ServingModel, require_overlap
from latentrec.serving.request_schemas import RATING_SYSTEMS, BadRequest, parse_parameters, parse_rows
from latentrec.serving.scoring_server import harden_scoring_server


class PyfuncRecommender(PythonModel):
    """A recommender or a rating model, by the model directory inside: the contract's columns of either."""

    def load_context(self, context: Any) -> None:
        """Load weights and catalogue (a newer one where configuration or environment name it), warm up."""
        harden_scoring_server()
        model_dir = context.artifacts["model"]
        self._rating = read_model(model_dir, verify=False)[0].system in RATING_SYSTEMS
        config = context.model_config or {}
        newer = config.get("catalogue") or os.environ.get(CATALOGUE_VARIABLE)
        source = CatalogueSource(newer) if newer else None
        self._model, self._version = served_as(context)
        own = context.artifacts["catalogue"]
        with tempfile.TemporaryDirectory() as folder:
            catalogue = source.fetch(Path(folder)) if source else own
            if self._rating:
                from latentrec.serving.rating_service import RatingService

                self._rater = RatingService.load(model_dir, catalogue)
                return
            options, assistant = DecodingOptions.from_config(config), context.artifacts.get("assistant")
            self._exclude_history = options.exclude_history
            loaded = ServingModel.load(
                model_dir, catalogue, options, assistant, own_path=own if source else None
            )
            self._service = RecommendationService(loaded)
        if source:

            def reload(path: Path) -> None:
                require_overlap(self._service.catalogue, Catalogue.read(path))
                self._service.replace(ServingModel.load(model_dir, path, options, assistant, own_path=own))

            watch(source, reload)

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Answer each row: recommendations after ``history``, or the rating of ``target``."""
        try:
            rows = parse_rows(model_input.to_dict("records"), rating=self._rating)
            if self._rating:
                return self._frame(self._rater.rate(rows), {"rating": "float64", "reasoning": object})
            parameters = parse_parameters(params, exclude_history=self._exclude_history)
        except BadRequest as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        return self._frame(
            self._service.recommend(rows, parameters),
            {
                "item_keys": object,
                "titles": object,
                "scores": object,
                "unknown_items": "int64",
                "fallback": "bool",
            },
        )

    def _frame(self, answers: list[Any], columns: dict[str, Any]) -> pd.DataFrame:
        """One row an answer, with the model and version that gave it."""
        frame = pd.DataFrame(
            {
                name: pd.Series([getattr(answer, name) for answer in answers], dtype=kind)
                for name, kind in columns.items()
            }
        )
        return frame.assign(model=self._model, version=self._version)


def served_as(context: Any) -> tuple[str, str]:
    """Registered name and version of the loaded model.

    MLflow leaves both beside a model that it has fetched from the registry. A model that was loaded from its
    files alone has the name that it was registered under, and an empty version.
    """
    config = context.model_config or {}
    for folder in Path(context.artifacts["model"]).resolve().parents[:3]:
        path = folder / "registered_model_meta"
        if path.is_file():
            content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            return str(content.get("model_name", "")), str(content.get("model_version", ""))
    return str(config.get("registered_name", "")), ""


set_model(PyfuncRecommender())
