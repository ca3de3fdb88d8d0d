"""Whether an answer token's probability is normalized over the vocabulary or over the catalogue's titles."""

from __future__ import annotations

from torch import Tensor

from latentrec.catalog import Catalogue, TokenTrie
from latentrec.data import Dataset
from latentrec.decoding.title_recommender import title_sequences
from latentrec.decoding.trie_tensors import TrieTensors
from latentrec.models.latentr3 import AllowedTokens
from latentrec.prompts import NextItemPrompt

DECODING_OF = {"vocabulary": "bigrec", "catalogue": "catalogue"}
"""Likelihood → the decoding whose score it is; validation ranks by it while training."""


def allowed_tokens_of(likelihood: str, data: Dataset, prompt: NextItemPrompt) -> CatalogueTokens | None:
    """Among what an answer's probability is taken; ``None``: the vocabulary."""
    return CatalogueTokens(data, prompt) if likelihood == "catalogue" else None


class CatalogueTokens:
    """The tokens that continue some title of the catalogue, at each position of given titles."""

    def __init__(self, data: Dataset, prompt: NextItemPrompt):
        """Tokenize the catalogue."""
        self._trie = TokenTrie.build(title_sequences(Catalogue.from_dataset(data), prompt))
        self._tensors: TrieTensors | None = None

    def __call__(self, answers_BML: Tensor, counted_BML: Tensor) -> AllowedTokens:
        """Of the counted positions, row after row.

        Args:
            answers_BML: token ids of titles, from their first token.
            counted_BML: bool, where there is a token; without gaps.
        """
        if self._tensors is None or self._tensors.device != answers_BML.device:
            self._tensors = TrieTensors(self._trie, answers_BML.device)
        return self._tensors.choices(answers_BML, counted_BML)
