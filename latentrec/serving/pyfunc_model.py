"""The served model, as MLflow runs it: a model from code, loaded from this file in the registered model."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from latentrec.core.settings import CATALOGUE_VARIABLE
from latentrec.models import read_model
from latentrec.serving.catalogue_source import CatalogueSource, watch
from latentrec.serving.recommendation_service import RecommendationService, ServingModel, ServingOptions
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
        with tempfile.TemporaryDirectory() as folder:
            catalogue = source.fetch(Path(folder)) if source else context.artifacts["catalogue"]
            if self._rating:
                from latentrec.serving.rating_service import RatingService

                self._rater = RatingService.load(model_dir, catalogue)
                return
            options, assistant = ServingOptions.from_config(config), context.artifacts.get("assistant")
            self._service = RecommendationService(ServingModel.load(model_dir, catalogue, options, assistant))
        if source:
            watch(
                source,
                lambda path: self._service.replace(ServingModel.load(model_dir, path, options, assistant)),
            )

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Answer each row: recommendations after ``history``, or the rating of ``target``."""
        try:
            rows = parse_rows(model_input.to_dict("records"), rating=self._rating)
            if self._rating:
                return _frame(self._rater.rate(rows), {"rating": "float64", "reasoning": object})
            parameters = parse_parameters(params)
        except BadRequest as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        return _frame(
            self._service.recommend(rows, parameters),
            {
                "item_keys": object,
                "titles": object,
                "scores": object,
                "unknown_items": "int64",
                "fallback": "bool",
            },
        )


def _frame(answers: list[Any], columns: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            name: pd.Series([getattr(answer, name) for answer in answers], dtype=kind)
            for name, kind in columns.items()
        }
    )


set_model(PyfuncRecommender())
