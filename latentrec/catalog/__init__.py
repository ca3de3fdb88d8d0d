"""Titles as token sequences: the catalogue, item and title identity, the CSR trie."""

from latentrec.catalog.catalogue import ITEMS_FILE, Catalogue
from latentrec.catalog.trie import ROOT, TokenTrie

__all__ = ["ITEMS_FILE", "ROOT", "Catalogue", "TokenTrie"]
