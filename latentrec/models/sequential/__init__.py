"""ID-based sequence encoders with one interface: SASRec, GRU4Rec, Caser, LARES."""

from latentrec.models.sequential.blocks import BLOCKS
from latentrec.models.sequential.caser import Caser
from latentrec.models.sequential.encoder import SequenceEncoder, at_last_position, pad_right
from latentrec.models.sequential.encoder_recommender import SequentialRecommender, save_encoder
from latentrec.models.sequential.encoders import ENCODERS, build_encoder
from latentrec.models.sequential.gru4rec import GRU4Rec
from latentrec.models.sequential.lares import INJECTIONS, LARES
from latentrec.models.sequential.recurrence import STEP_SAMPLERS, sample_steps
from latentrec.models.sequential.sasrec import SASRec

__all__ = [
    "BLOCKS",
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
