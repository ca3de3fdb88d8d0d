"""Prompts of RecZero and RecOne: analyze the user, analyze the item, match them, rate.

A prompt holds the history (title, rating, review text of each item, oldest first), the target (title,
description) and the training-period means of user and item. It never exceeds a budget of tokens; the rule by
which it is cut is :meth:`RatingPrompt.render`'s. Two wordings: ``full`` for instruct models, ``compact`` for
the small preset, whose every token costs time on two cores.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any

from latentrec.core import UserError
from latentrec.prompts.rating_examples import HistoryEntry, RatingExample
from latentrec.prompts.rating_format import TAG_PATTERN, RatingScale, render_answer

LONGEST_TOKEN = 64
"""Characters beyond which a budget of one token certainly reaches; texts are cut there before tokenizing."""
STYLES = ("full", "compact")
FEW_SHOT = (0, 1)

FULL_INSTRUCTION = """\
Predict the rating that a user will give to a target item, from {low:g} to {high:g}; decimals are allowed.
First analyze the user's preferences and rating habits, then the item, then how well they match; then rate.
Answer with exactly these four sections and nothing else:
<analyze user>...</analyze user> <analyze item>...</analyze item> <match>...</match> <rate>a number</rate>
"""


@dataclass(frozen=True)
class RatingPromptSettings:
    """Wording and budgets of a prompt; stored with the model, so that serving asks as training did.

    Attributes:
        style: wording of the prompt.
        max_prompt_tokens: budget of a prompt, in tokens of the model's tokenizer.
        max_history: most recent rated items shown.
        max_review_tokens: tokens kept of each review text; 0 shows none.
        max_description_tokens: tokens kept of the target's description; 0 shows none.
        few_shot: worked examples before the question, 0 or 1; they count in ``max_prompt_tokens``. With a
            chat template it is a turn of its own. Its user, items and words are invented.
    """

    style: str = "compact"
    max_prompt_tokens: int = 160
    max_history: int = 5
    max_review_tokens: int = 8
    max_description_tokens: int = 0
    few_shot: int = 0

    def __post_init__(self) -> None:
        """Refuse budgets that hold nothing."""
        for name, least in (
            ("max_prompt_tokens", 32),
            ("max_history", 0),
            ("max_review_tokens", 0),
            ("max_description_tokens", 0),
        ):
            if getattr(self, name) < least:
                raise UserError(
                    f"{name} is {getattr(self, name)}; it must be at least {least}", code="config.bad_value"
                )
        if self.style not in STYLES:
            raise UserError(f"style is {self.style!r}; allowed: {', '.join(STYLES)}", code="config.bad_value")
        if self.few_shot not in FEW_SHOT:
            raise UserError(
                f"few_shot is {self.few_shot}; allowed: 0 (none), 1 (one worked example)",
                code="config.bad_value",
            )


INSTRUCT_SETTINGS = RatingPromptSettings(
    style="full", max_prompt_tokens=2048, max_history=10, max_review_tokens=96, max_description_tokens=128
)


@dataclass(frozen=True)
class RenderedPrompt:
    """A prompt within its budget.

    Attributes:
        text: the user message, or the plain text that the model continues.
        n_tokens: what the model reads, chat template included.
        history_shown: items of the history that are left.
    """

    text: str
    n_tokens: int
    history_shown: int


class RatingPrompt:
    """Renders examples for one tokenizer; a tokenizer with a chat template gets conversations."""

    def __init__(
        self, tokenizer: Any, settings: RatingPromptSettings | None = None, scale: RatingScale | None = None
    ):
        self.tokenizer = tokenizer
        self.settings = settings or RatingPromptSettings()
        self.scale = scale or RatingScale()
        self.conversational = bool(getattr(tokenizer, "chat_template", None))
        self._reserved = reserved_pattern(tokenizer)

    def render(self, example: RatingExample) -> RenderedPrompt:
        """Write the prompt, cut to the budget.

        The rule: review texts and description are first cut to their own budgets; then the **oldest** item of
        the history goes, again and again, until the prompt fits; then the description goes.

        Raises:
            UserError: not even the bare target fits.
        """
        settings = self.settings
        history = example.history[len(example.history) - min(len(example.history), settings.max_history) :]
        example = replace(
            example,
            title=plain(example.title, self._reserved),
            history=tuple(
                replace(
                    entry,
                    title=plain(entry.title, self._reserved),
                    review=self._cut(entry.review, settings.max_review_tokens),
                )
                for entry in history
            ),
            description=self._cut(example.description, settings.max_description_tokens),
        )
        while True:
            text = self._write(example)
            n_tokens = self.count_tokens(text)
            if n_tokens <= settings.max_prompt_tokens:
                return RenderedPrompt(text, n_tokens, len(example.history))
            if example.history:
                example = replace(example, history=example.history[1:])
            elif example.description:
                example = replace(example, description="")
            else:
                raise UserError(
                    f"max_prompt_tokens is {settings.max_prompt_tokens}, the prompt for {example.title!r} "
                    f"takes {n_tokens} without any history; raise it",
                    code="prompt.too_long",
                )

    def as_input(self, rendered: RenderedPrompt) -> Any:
        """What trl's trainers take as ``prompt``: a conversation, or plain text."""
        return self._turns(rendered.text) if self.conversational else self._plain_text(rendered.text)

    def token_ids(self, rendered: RenderedPrompt) -> list[int]:
        """What the model reads before its answer."""
        return self._ids(rendered.text)

    def count_tokens(self, text: str) -> int:
        """Length of a prompt with this text, chat template included."""
        return len(self._ids(text))

    def cut_review(self, text: str) -> str:
        """A review text as a prompt shows it."""
        return self._cut(text, self.settings.max_review_tokens)

    def _ids(self, text: str) -> list[int]:
        if self.conversational:
            encoded = self.tokenizer.apply_chat_template(
                self._turns(text), add_generation_prompt=True, tokenize=True, return_dict=True
            )
            return list(encoded["input_ids"])
        return list(self.tokenizer(self._plain_text(text))["input_ids"])

    def _turns(self, text: str) -> list[dict[str, str]]:
        """The conversation that ends with this question."""
        turns = []
        if self.settings.few_shot:
            question, answer = self._worked
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return [*turns, {"role": "user", "content": text}]

    def _plain_text(self, text: str) -> str:
        """The text that a model without a chat template continues."""
        return f"{self._worked[0]}{self._worked[1]}\n\n{text}" if self.settings.few_shot else text

    @property
    def _worked(self) -> tuple[str, str]:
        """The worked example: question and answer, in this prompt's wording and on its scale."""
        low, high = self.scale.low, self.scale.high
        liked, disliked = high, low + 0.25 * (high - low)
        history = (
            HistoryEntry("Bamboo tea tray", liked, "well made, I use it daily"),
            HistoryEntry("Plastic kettle", disliked, "leaks and smells"),
        )
        example = RatingExample(
            history, "Ceramic teapot", "", (liked + disliked) / 2, low + 0.8 * (high - low)
        )
        answer = render_answer(
            "Likes sturdy tea things of natural material and is strict with cheap plastic.",
            "A ceramic teapot that others rate well.",
            "Material and purpose fit what the user liked; nothing points to what was disliked.",
            low + 0.9 * (high - low),
        )
        return self._write(example), answer

    def _cut(self, text: str, limit: int) -> str:
        if not text or limit == 0:
            return ""
        text = plain(text[: limit * LONGEST_TOKEN], self._reserved)
        if not text:
            return ""
        spans = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return text if len(spans) <= limit else text[: spans[limit - 1][1]].rstrip()

    def _write(self, example: RatingExample) -> str:
        write = _write_full if self.settings.style == "full" else _write_compact
        return write(example, self.scale)


def plain(text: str, reserved: re.Pattern[str] = TAG_PATTERN) -> str:
    """One line of plain text: white space folded, what is ``reserved`` taken out.

    By default that is the format's tags, which must not pass for a part of an answer.
    """
    text = " ".join(text.split())  # folded first: "<analyze  user>" becomes a tag only by the folding
    while reserved.search(text):
        text = " ".join(reserved.sub(" ", text).split())
    return text


def reserved_pattern(tokenizer: Any) -> re.Pattern[str]:
    """The format's tags and the tokenizer's special tokens.

    A special token in a title or a review (``<|im_end|>``) would end the user's turn or the text: tokenizers
    read it as the token and not as its letters.
    """
    # A counter of words has neither.
    special = {str(token) for token in getattr(tokenizer, "all_special_tokens", ())}
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special |= {token.content for token in added.values() if token.special}
    words = "|".join(re.escape(word) for word in sorted(special, key=len, reverse=True) if word)
    return re.compile(f"{TAG_PATTERN.pattern}|{words}") if words else TAG_PATTERN


def _number(value: float | None) -> str:
    return "unknown" if value is None or math.isnan(value) else f"{value:.1f}"


def _write_full(example: RatingExample, scale: RatingScale) -> str:
    lines = [
        FULL_INSTRUCTION.format(low=scale.low, high=scale.high),
        "Items that the user rated, oldest first:",
    ]
    lines += [_full_entry(entry) for entry in example.history] or ["(none)"]
    lines.append(f"Mean rating given by the user: {_number(example.user_mean)}")
    lines.append(f'Target item: "{example.title}"')
    if example.description:
        lines.append(f"Description of the target item: {example.description}")
    lines.append(f"Mean rating of the target item: {_number(example.item_mean)}")
    return "\n".join(lines) + "\n"


def _full_entry(entry: HistoryEntry) -> str:
    review = f'; review: "{entry.review}"' if entry.review else ""
    return f'- "{entry.title}": rated {_number(entry.rating)}{review}'


def _write_compact(example: RatingExample, scale: RatingScale) -> str:
    lines = [f"Analyze the user, the item and their match, then rate from {scale.low:g} to {scale.high:g}."]
    for entry in example.history:
        review = f" {entry.review}" if entry.review else ""
        lines.append(f'"{entry.title}" {_number(entry.rating)}{review}')
    lines.append(f'Target "{example.title}"')
    if example.description:
        lines.append(example.description)
    lines.append(f"Item mean {_number(example.item_mean)}. User mean {_number(example.user_mean)}.")
    return "\n".join(lines) + "\n"
