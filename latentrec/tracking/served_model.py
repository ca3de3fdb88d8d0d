"""The served model, as MLflow runs it: a model from code, loaded from this file inside the registered model."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from latentrec.tracking.catalogue_source import CATALOGUE_VARIABLE, CatalogueSource, watch
from latentrec.tracking.requests import BadRequest, parse_parameters, parse_rows
from latentrec.tracking.scoring_door import harden_scoring_server
from latentrec.tracking.serving import Loaded, RecommendationService


class ServedRecommender(PythonModel):
    """Recommendations from a LatentR³ model, a sequential encoder or popularity: the contract's columns."""

    def load_context(self, context: Any) -> None:
        """Load weights and catalogue (a newer one where ``catalogue`` or LATENTREC_CATALOGUE says so), warm up."""
        harden_scoring_server()
        model_dir = context.artifacts["model"]
        newer = (context.model_config or {}).get("catalogue") or os.environ.get(CATALOGUE_VARIABLE)
        if not newer:
            self._service = RecommendationService(Loaded.load(model_dir, context.artifacts["catalogue"]))
            return
        source = CatalogueSource(newer)
        with tempfile.TemporaryDirectory() as folder:
            loaded = Loaded.load(model_dir, source.fetch(Path(folder)))
        self._service = RecommendationService(loaded)
        watch(source, lambda path: self._service.replace(Loaded.load(model_dir, path)))

    def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
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
