"""Prompt templates of each system and the parser of written ratings."""

from latentrec.prompts.title_prompt import NextItemPrompt, title_line

__all__ = ["NextItemPrompt", "title_line"]
