"""Encoders by name, without importing them. A new one is one file and one line here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from latentrec.core import UserError

if TYPE_CHECKING:
    from latentrec.models.sequential.encoder import SequenceEncoder

ENCODERS = {
    "caser": "latentrec.models.sequential.caser:Caser",
    "gru4rec": "latentrec.models.sequential.gru4rec:GRU4Rec",
    "lares": "latentrec.models.sequential.lares:LARES",
    "sasrec": "latentrec.models.sequential.sasrec:SASRec",
}
"""Module and class of each encoder: a configuration that names one needs no torch."""

BLOCK_NAMES = ("transformer", "filter", "gru")
"""Layers of LARES, as :data:`latentrec.models.sequential.blocks.BLOCKS` has them."""
INJECTIONS = ("add", "concat", "linear", "linear_scalar")
"""How LARES feeds its input into each step."""
STEP_SAMPLERS = ("poisson_lognormal", "uniform", "uniform_to_double", "constant")
"""How LARES draws the number of steps while training."""


def build_encoder(name: str, architecture: Mapping[str, Any]) -> SequenceEncoder:
    """Make an untrained encoder from its class's keyword arguments.

    Raises:
        UserError: no such encoder, or arguments that its class does not take or accept.
    """
    if name not in ENCODERS:
        raise UserError(
            f"encoder is {name!r}; there are: {', '.join(sorted(ENCODERS))}", code="config.unknown_name"
        )
    module, _, kind = ENCODERS[name].partition(":")
    try:
        made: SequenceEncoder = getattr(importlib.import_module(module), kind)(**architecture)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"encoder {name}: {error}; architecture given: {dict(architecture)}", code="config.invalid"
        ) from None
    return made
