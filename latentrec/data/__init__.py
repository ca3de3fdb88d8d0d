"""Amazon reviews in, dataset directory out; and the dataset directory read again."""

from typing import TYPE_CHECKING

from latentrec.core.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from latentrec.data.baseline_dataset import content_of
    from latentrec.data.data_prep_config import DataPrepConfig
    from latentrec.data.dataset import SPLITS, Dataset, Samples, of_users_at_most, sample_at_most
    from latentrec.data.preparation import is_no_new_data, prepare
    from latentrec.data.synthetic import generate_sample

__all__ = [
    "SPLITS",
    "DataPrepConfig",
    "Dataset",
    "Samples",
    "content_of",
    "generate_sample",
    "is_no_new_data",
    "of_users_at_most",
    "prepare",
    "sample_at_most",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "baseline_dataset": ("content_of",),
        "data_prep_config": ("DataPrepConfig",),
        "dataset": ("SPLITS", "Dataset", "Samples", "of_users_at_most", "sample_at_most"),
        "preparation": ("is_no_new_data", "prepare"),
        "synthetic": ("generate_sample",),
    },
)
