"""ID-based sequence encoders with one interface: SASRec, GRU4Rec, Caser, LARES."""

from latentrec.models.sequential.base import SequenceEncoder, at_last_position, pad_right
from latentrec.models.sequential.recommender import SequentialRecommender, save_encoder
from latentrec.models.sequential.registry import ENCODERS, build_encoder
from latentrec.models.sequential.sasrec import SASRec

__all__ = [
    "ENCODERS",
    "SASRec",
    "SequenceEncoder",
    "SequentialRecommender",
    "at_last_position",
    "build_encoder",
    "pad_right",
    "save_encoder",
]
