"""Amazon reviews in, dataset directory out; and the dataset directory read again."""

from latentrec.data.dataset import SPLITS, Dataset, Samples

__all__ = ["SPLITS", "Dataset", "Samples"]
