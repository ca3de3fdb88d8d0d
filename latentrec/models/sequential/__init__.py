"""ID-based sequence encoders with one interface: SASRec, GRU4Rec, Caser, LARES."""

from typing import TYPE_CHECKING

from latentrec.core.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from latentrec.models.sequential.blocks import BLOCKS
    from latentrec.models.sequential.caser import Caser
    from latentrec.models.sequential.encoder import SequenceEncoder, at_last_position, pad_right
    from latentrec.models.sequential.encoder_recommender import SequentialRecommender, save_encoder
    from latentrec.models.sequential.encoders import (
        BLOCK_NAMES,
        ENCODERS,
        INJECTIONS,
        STEP_SAMPLERS,
        build_encoder,
    )
    from latentrec.models.sequential.gru4rec import GRU4Rec
    from latentrec.models.sequential.lares import LARES
    from latentrec.models.sequential.recurrence import sample_steps
    from latentrec.models.sequential.sasrec import SASRec

__all__ = [
    "BLOCKS",
    "BLOCK_NAMES",
    "ENCODERS",
    "INJECTIONS",
    "LARES",
    "STEP_SAMPLERS",
    "Caser",
    "GRU4Rec",
    "SASRec",
    "SequenceEncoder",
    "SequentialRecommender",
    "at_last_position",
    "build_encoder",
    "pad_right",
    "sample_steps",
    "save_encoder",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "blocks": ("BLOCKS",),
        "caser": ("Caser",),
        "encoder": (
            "SequenceEncoder",
            "at_last_position",
            "pad_right",
        ),
        "encoder_recommender": (
            "SequentialRecommender",
            "save_encoder",
        ),
        "encoders": (
            "BLOCK_NAMES",
            "ENCODERS",
            "INJECTIONS",
            "STEP_SAMPLERS",
            "build_encoder",
        ),
        "gru4rec": ("GRU4Rec",),
        "lares": ("LARES",),
        "recurrence": ("sample_steps",),
        "sasrec": ("SASRec",),
    },
)
