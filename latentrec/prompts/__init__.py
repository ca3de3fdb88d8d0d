"""Prompt templates of each system and the parser of written ratings."""

from latentrec.prompts.latentr3 import NextItemPrompt, title_line

__all__ = ["NextItemPrompt", "title_line"]
