"""Fixtures of the rating family for this folder."""

from tests.fixtures.rating import base, dataset, rating_dataset, tiny, tokenizer  # noqa: F401
