"""Amazon reviews in, dataset directory out; and the dataset directory read again."""

from latentrec.data.baseline_dataset import content_of
from latentrec.data.data_prep_config import DataPrepConfig
from latentrec.data.dataset import SPLITS, Dataset, Samples
from latentrec.data.prepare import is_no_new_data, prepare
from latentrec.data.synthetic import generate_sample

__all__ = [
    "SPLITS",
    "DataPrepConfig",
    "Dataset",
    "Samples",
    "content_of",
    "generate_sample",
    "is_no_new_data",
    "prepare",
]
