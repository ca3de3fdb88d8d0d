"""The served model, as MLflow runs it: a model from code, loaded from this file in the registered model."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from latentrec.tracking.catalogue_source import CATALOGUE_VARIABLE, CatalogueSource, watch
from latentrec.tracking.requests import BadRequest, parse_parameters, parse_rows
from latentrec.tracking.scoring_door import harden_scoring_server
from latentrec.tracking.serving import Loaded, RecommendationService, ServingOptions

# The signature that registration writes is checked at every call; hints on `predict` would be a second one.
warnings.filterwarnings("ignore", message=".*Add type hints to the `predict`", category=UserWarning)


class ServedRecommender(PythonModel):
    """Recommendations from a LatentR³ model, a sequential encoder or popularity: the contract's columns."""

    def load_context(self, context: Any) -> None:
        """Load weights and catalogue (a newer one where configuration or environment name it), warm up."""
        harden_scoring_server()
        config = context.model_config or {}
        options = ServingOptions.from_config(config)

        def load(catalogue: str | Path) -> Loaded:
            return Loaded.load(
                context.artifacts["model"], catalogue, options, context.artifacts.get("assistant")
            )

        newer = config.get("catalogue") or os.environ.get(CATALOGUE_VARIABLE)
        if not newer:
            self._service = RecommendationService(load(context.artifacts["catalogue"]))
            return
        source = CatalogueSource(newer)
        with tempfile.TemporaryDirectory() as folder:
            self._service = RecommendationService(load(source.fetch(Path(folder))))
        watch(source, lambda path: self._service.replace(load(path)))

    def predict(self, context, model_input, params=None):
        """Recommend for each row of ``history`` (and ``history_titles``)."""
        try:
            parameters = parse_parameters(params)
            rows = parse_rows(model_input.to_dict("records"))
        except BadRequest as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None
        answers = self._service.recommend(rows, parameters)
        return pd.DataFrame(
            {
                name: pd.Series([getattr(answer, name) for answer in answers], dtype=kind)
                for name, kind in (
                    ("item_keys", object),
                    ("titles", object),
                    ("scores", object),
                    ("unknown_items", "int64"),
                    ("fallback", "bool"),
                )
            }
        )


set_model(ServedRecommender())
