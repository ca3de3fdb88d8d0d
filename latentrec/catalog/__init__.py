"""Titles as token sequences: the catalogue, item and title identity, the CSR trie."""
