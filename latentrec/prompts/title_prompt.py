"""The next-item prompt of LatentR³ and BIGRec: instruction, titles oldest first, and where the answer begins.

Every piece (instruction, each title line, the answer's lead-in) is tokenized on its own and the ids are
joined. So a title has the same tokens wherever it stands: as a history line, as a target, in the trie of
the catalogue, and in a row that holds all prefixes of one user.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from latentrec.core import UserError

INSTRUCTION = "Titles bought, oldest first:\n"
RESPONSE = "Next:\n"


def title_line(title: str) -> str:
    """A title as it stands in a history and as an answer: in double quotes, then a newline."""
    return f'"{title}"\n'


class NextItemPrompt:
    """Turns histories and targets into token ids.

    Args:
        tokenizer: a Hugging Face tokenizer with an end-of-sequence token.
        max_history: titles kept, counted from the newest.
        max_prompt_tokens: longest prompt; the oldest titles are dropped whole until it fits.
        max_title_tokens: longest title line; a longer history line loses its tail, a longer target is
            refused.
        instruction: text before the titles.
        response: text after them.

    Attributes:
        prefix_ids: tokens before the titles, with the tokenizer's beginning-of-sequence token if it has one.
        response_ids: tokens between the last title and the answer; never empty.
        eos_id, pad_id: special token ids.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_history: int = 10,
        max_prompt_tokens: int = 512,
        max_title_tokens: int = 128,
        instruction: str = INSTRUCTION,
        response: str = RESPONSE,
    ):
        """Tokenize the frame and check that at least one title of the greatest length fits.

        Raises:
            UserError: the tokenizer has no end-of-sequence token, a limit is below one, or the limits clash.
        """
        if tokenizer.eos_token_id is None:
            raise UserError(
                "the backbone's tokenizer has no eos_token, so a title could not end; "
                "set eos_token in its tokenizer_config.json",
                code="backbone.no_end_token",
            )
        self.tokenizer = tokenizer
        self.max_history = max_history
        self.max_prompt_tokens = max_prompt_tokens
        self.max_title_tokens = max_title_tokens
        self.instruction = instruction
        self.response = response
        self.eos_id: int = tokenizer.eos_token_id
        self.pad_id: int = self.eos_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        self.prefix_ids: list[int] = begin + self._tokens(instruction)
        self.response_ids: list[int] = self._tokens(response)
        self._lines: dict[str, list[int]] = {}
        for name, value in (("max_history", max_history), ("max_title_tokens", max_title_tokens)):
            if value < 1:
                raise UserError(f"{name} is {value}; it must be at least 1", code="config.bad_value")
        if not self.response_ids:
            raise UserError(
                f"the prompt's response text is {response!r}; it must hold at least one token, "
                "where the answer begins",
                code="config.bad_value",
            )
        shortest = len(self.prefix_ids) + max_title_tokens + len(self.response_ids)
        if max_prompt_tokens < shortest:
            raise UserError(
                f"max_prompt_tokens is {max_prompt_tokens}; the instruction and one title of "
                f"max_title_tokens={max_title_tokens} need {shortest}",
                code="prompt.too_long",
            )

    def history_lines(self, titles: Sequence[str]) -> list[list[int]]:
        """Token ids of the title lines that a prompt keeps, oldest first."""
        kept = [self._line(title)[: self.max_title_tokens] for title in titles[-self.max_history :]]
        budget = self.max_prompt_tokens - len(self.prefix_ids) - len(self.response_ids)
        total = sum(map(len, kept))
        first = 0
        while total > budget:
            total -= len(kept[first])
            first += 1
        return kept[first:]

    def encode_history(self, titles: Sequence[str]) -> list[int]:
        """Prompt ids after a history (oldest first; may be empty)."""
        ids = list(self.prefix_ids)
        for line in self.history_lines(titles):
            ids += line
        return ids + self.response_ids

    def encode_target(self, title: str) -> list[int]:
        """Answer ids: the quoted title, a newline, end of sequence.

        Raises:
            UserError: the line is longer than ``max_title_tokens``.
        """
        line = self._line(title)
        if len(line) > self.max_title_tokens:
            raise UserError(
                f"the title {title[:60]!r}… has {len(line)} tokens, max_title_tokens is "
                f"{self.max_title_tokens}; raise max_title_tokens to {len(line)}",
                code="prompt.title_too_long",
            )
        return [*line, self.eos_id]

    def check_titles(self, titles: Sequence[str]) -> None:
        """Refuse a catalogue that does not fit, before any training.

        Raises:
            UserError: naming how many titles are longer than ``max_title_tokens``, and the longest.
        """
        lengths = [len(self._line(title)) for title in titles]
        if lengths and (longest := max(lengths)) > self.max_title_tokens:
            over = sum(length > self.max_title_tokens for length in lengths)
            raise UserError(
                f"max_title_tokens is {self.max_title_tokens}, but {over:,} of {len(titles):,} titles are "
                f"longer (the longest has {longest}: {titles[lengths.index(longest)][:60]!r}); "
                f"raise max_title_tokens to {longest}",
                code="prompt.title_too_long",
            )

    def settings(self) -> dict[str, Any]:
        """What rebuilds this prompt beside a tokenizer, as JSON values."""
        return {
            "max_history": self.max_history,
            "max_prompt_tokens": self.max_prompt_tokens,
            "max_title_tokens": self.max_title_tokens,
            "instruction": self.instruction,
            "response": self.response,
        }

    def _line(self, title: str) -> list[int]:
        line = self._lines.get(title)
        if line is None:
            line = self._lines[title] = self._tokens(title_line(title))
        return line

    def _tokens(self, text: str) -> list[int]:
        # A title may hold the text of a special token ("<|endoftext|>"): it is read as its letters, or it
        # would end the title early.
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
