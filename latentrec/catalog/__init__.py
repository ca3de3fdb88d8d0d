"""Titles to tokens to trie; item identity and title identity."""

from latentrec.catalog.catalogue import ITEMS_FILE, Catalogue

__all__ = ["ITEMS_FILE", "Catalogue"]
