"""Words in place of tokens, for prompts to a model whose tokenizer is unknown: one behind an endpoint."""

from __future__ import annotations

import re
from typing import Any

_WORD = re.compile(r"\w+|[^\w\s]")


class WordTokenizer:
    """Counts words and punctuation marks; as much of a tokenizer as :class:`RatingPrompt` needs.

    A common subword tokenizer makes about 1.3 tokens of one such word in English.
    """

    chat_template: str | None = None

    def __call__(self, text: str, **_: Any) -> dict[str, list[Any]]:
        """``input_ids`` (all 0) and ``offset_mapping`` of the words of ``text``."""
        spans = [match.span() for match in _WORD.finditer(text)]
        return {"input_ids": [0] * len(spans), "offset_mapping": spans}
