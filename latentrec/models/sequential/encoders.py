"""Encoders by name. A new one is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latentrec.core import UserError
from latentrec.models.sequential.caser import Caser
from latentrec.models.sequential.encoder import SequenceEncoder
from latentrec.models.sequential.gru4rec import GRU4Rec
from latentrec.models.sequential.lares import LARES
from latentrec.models.sequential.sasrec import SASRec

ENCODERS: dict[str, type[SequenceEncoder]] = {
    "caser": Caser,
    "gru4rec": GRU4Rec,
    "lares": LARES,
    "sasrec": SASRec,
}


def build_encoder(name: str, architecture: Mapping[str, Any]) -> SequenceEncoder:
    """Make an untrained encoder from its class's keyword arguments.

    Raises:
        UserError: no such encoder, or arguments that its class does not take or accept.
    """
    if name not in ENCODERS:
        raise UserError(f"encoder is {name!r}; there are: {', '.join(sorted(ENCODERS))}")
    try:
        return ENCODERS[name](**architecture)
    except (TypeError, ValueError) as error:
        raise UserError(f"encoder {name}: {error}; architecture given: {dict(architecture)}") from None
