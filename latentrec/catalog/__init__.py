"""Titles as token sequences: the catalogue, item and title identity, the CSR trie."""

from latentrec.catalog.catalogue import ITEMS_FILE, MIN_OVERLAP, Catalogue
from latentrec.catalog.trie import ROOT, TokenTrie

__all__ = ["ITEMS_FILE", "MIN_OVERLAP", "ROOT", "Catalogue", "TokenTrie"]
