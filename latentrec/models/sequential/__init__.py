"""ID-based sequence encoders with one interface: SASRec, GRU4Rec, Caser, LARES."""

from typing import TYPE_CHECKING

from latentrec.core.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from latentrec.models.sequential.blocks import BLOCKS
    from latentrec.models.sequential.encoder import SequenceEncoder, at_last_position, pad_right
    from latentrec.models.sequential.encoder_recommender import (
        SequentialRecommender,
        encoder_of,
        save_encoder,
    )
    from latentrec.models.sequential.encoders import (
        BLOCK_NAMES,
        ENCODERS,
        STEP_SAMPLERS,
        build_encoder,
    )
    from latentrec.models.sequential.lares import LARES
    from latentrec.models.sequential.recurrence import sample_steps
    from latentrec.models.sequential.sasrec import SASRec

__all__ = [
    "BLOCKS",
    "BLOCK_NAMES",
    "ENCODERS",
    "LARES",
    "STEP_SAMPLERS",
    "SASRec",
    "SequenceEncoder",
    "SequentialRecommender",
    "at_last_position",
    "build_encoder",
    "encoder_of",
    "pad_right",
    "sample_steps",
    "save_encoder",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "blocks": ("BLOCKS",),
        "encoder": (
            "SequenceEncoder",
            "at_last_position",
            "pad_right",
        ),
        "encoder_recommender": (
            "SequentialRecommender",
            "encoder_of",
            "save_encoder",
        ),
        "encoders": (
            "BLOCK_NAMES",
            "ENCODERS",
            "STEP_SAMPLERS",
            "build_encoder",
        ),
        "lares": ("LARES",),
        "recurrence": ("sample_steps",),
        "sasrec": ("SASRec",),
    },
)
