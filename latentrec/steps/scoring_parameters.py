"""The parameters of the pipeline ``batch_scoring``, checked before anything costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latentrec.core import UserError
from latentrec.serving.request_schemas import MAX_K
from latentrec.steps.step_sizes import quantity

MAX_SHARDS = 1000
"""Pods that one batch scoring is shared out to at most."""


def check_scoring(given: Mapping[str, Any]) -> None:
    """Check the parameters of the pipeline ``batch_scoring``, without asking registry or storage.

    Args:
        given: values by name; those that are absent have their default.

    Raises:
        UserError: names the first that is wrong.
    """
    for name in ("model_uri", "users"):
        if not given.get(name):
            raise UserError(f"{name} is missing; give PARAMS='{name}=…'", code="config.missing_value")
    if not str(given["model_uri"]).startswith("models:/"):
        raise UserError(
            f"model_uri is {given['model_uri']!r}, expected models:/NAME@ALIAS or models:/NAME/VERSION",
            code="config.bad_value",
        )
    for name, most in (("batch_score_shards", MAX_SHARDS), ("k", MAX_K), ("batch_size", 1 << 20)):
        if not 1 <= given.get(name, 1) <= most:
            raise UserError(f"{name} is {given[name]}, expected 1 to {most:,}", code="config.bad_value")
    for name in ("score_cpu", "score_memory"):
        if name in given:
            quantity(name, given[name])
