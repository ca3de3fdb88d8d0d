"""Prompt templates of each system and the parser of written ratings."""
