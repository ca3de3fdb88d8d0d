"""Generated instruction text on which the small placeholder is pre-trained.

A text is a prompt about an **invented** user (catalogue titles in random order, random ratings, stock
remarks, random means) and an answer. To a rating prompt the answer keeps RecZero's format at a stated
rate; otherwise it is free text or one of the ways to break the format. Within the format the analyses
read the prompt correctly, the match is drawn at random, and the rating follows the match drawn and
nothing else: **no rating in this text depends on the target, the user or any rating of the dataset**. A
second kind of prompt asks for something that stands in the prompt (the user mean, the item mean), so
that the model learns to read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from latentrec.core import UserError
from latentrec.prompts.rating_examples import HistoryEntry, RatingExample
from latentrec.prompts.rating_format import RatingScale, render_answer
from latentrec.prompts.rating_prompt import RatingPrompt, plain

REMARKS = (
    "great", "good gift", "love it", "as described", "works well", "nice", "would buy again", "okay",
    "not what I hoped", "broke soon", "too expensive", "poor quality", "easy to use", "arrived late",
)  # fmt: skip
HABITS = ("often pleased", "hard to please", "writes short reviews", "rates as most do")
MATCHES = ("poor match", "weak match", "fair match", "good match", "close match")
QUESTIONS = ("Say the user mean.", "Say the item mean.")


@dataclass(frozen=True)
class Instruction:
    """One text; ``rated`` for rating prompts, ``in_format`` where the answer keeps the format."""

    prompt: str
    answer: str
    rated: bool
    in_format: bool


def tokenizer_texts(titles: Sequence[str], reviews: Sequence[str], *, limit: int = 20_000) -> Iterator[str]:
    """What the placeholder's tokenizer is trained on: titles, training reviews, stock phrases."""
    for _ in range(300):  # often enough that each of their words becomes one token
        yield from (*REMARKS, *HABITS, *MATCHES, *QUESTIONS)
        yield "Analyze the user, the item and their match, then rate from 1 to 5."
        yield 'Target "x"\nItem mean 4.1. User mean unknown.\ngives 3.9, gets it, I would give it'
    yield from (plain(title) for title in titles)
    yield from (plain(review)[:400] for review in reviews[:limit])


class InstructionCorpus:
    """An endless, seeded source of :class:`Instruction`.

    Args:
        titles: of the catalogue.
        reviews: texts of training-period reviews; each is put beside any item and any rating, at random, so
            that what it says of a rating is noise.
        prompt: renders the invented examples as training will render the real ones.
        format_rate: share of rating prompts that are answered in the format.
        reading_share: share of prompts that ask for something to be read out.
        seed: of everything random.
    """

    def __init__(
        self,
        titles: Sequence[str],
        prompt: RatingPrompt,
        *,
        reviews: Sequence[str] = (),
        format_rate: float,
        reading_share: float,
        seed: int,
    ):
        if not titles:
            raise UserError(
                "the catalogue has no titles; prepare the data with --metadata", code="dataset.no_titles"
            )
        self._titles = list(dict.fromkeys(plain(title) for title in titles))
        self._prompt = prompt
        self._reviews = [prompt.cut_review(review) for review in reviews]
        self._format_rate, self._reading_share = format_rate, reading_share
        self._rng = np.random.default_rng(seed)

    def take(self, count: int) -> list[Instruction]:
        """The next ``count`` texts."""
        return [self._next() for _ in range(count)]

    def _next(self) -> Instruction:
        example = self._example()
        prompt = self._prompt.render(example).text
        if self._rng.random() < self._reading_share:
            question = int(self._rng.integers(len(QUESTIONS)))
            answer = (_said(example.user_mean), _said(example.item_mean))[question]
            _, rest = prompt.split("\n", 1)
            return Instruction(f"{QUESTIONS[question]}\n{rest}", answer, rated=False, in_format=False)
        level = int(self._rng.integers(len(MATCHES)))
        rating = self._rating(level)
        sections = (
            f"gives {_said(example.user_mean)}, {self._choice(HABITS)}",
            f"gets {_said(example.item_mean)}",
            MATCHES[level],
        )
        keeps = bool(self._rng.random() < self._format_rate)
        answer = render_answer(*sections, rating=rating) if keeps else self._without_format(sections, rating)
        return Instruction(prompt, answer, rated=True, in_format=keeps)

    def _example(self) -> RatingExample:
        longest = self._prompt.settings.max_history
        shown = int(self._rng.integers(0, longest + 1)) if self._rng.random() < 0.5 else 0
        history = tuple(
            HistoryEntry(
                self._choice(self._titles),
                float(self._rng.integers(1, 6)),
                self._remark(),
            )
            for _ in range(shown)
        )
        return RatingExample(
            history=history,
            title=self._choice(self._titles),
            user_mean=self._mean(),
            item_mean=self._mean(),
        )

    def _remark(self) -> str:
        kind = self._rng.random()
        if kind < 0.2:
            return ""
        return self._choice(self._reviews if self._reviews and kind < 0.8 else REMARKS)

    def _without_format(self, sections: tuple[str, str, str], rating: float) -> str:
        """Free text, or the format broken in one of the usual ways."""
        user, item, match = sections
        whole = render_answer(user, item, match, rating)
        parts = whole.replace("> <", ">\n<").split("\n")
        kind = int(self._rng.integers(8))
        if kind == 0:
            return f"{match}, I would give it {rating:.1f}"
        if kind == 1:
            return f"The user {user}. {item}. {rating:.1f}"
        if kind == 2:
            return parts[3]
        if kind == 3:
            return " ".join(parts[:3])
        if kind == 4:
            return " ".join((parts[1], parts[0], *parts[2:]))
        if kind == 5:
            return " ".join((*parts[:2], parts[3]))
        if kind == 6:
            return " ".join((*parts[:3], f"{rating:.1f}"))
        return f"{rating:.1f}"

    def _rating(self, level: int) -> float:
        """The star that a match drawn names: of five matches the lowest is the scale's low end."""
        scale: RatingScale = self._prompt.scale
        return round(scale.low + scale.span * level / (len(MATCHES) - 1), 1)

    def _mean(self) -> float | None:
        scale = self._prompt.scale
        if self._rng.random() < 0.15:
            return None
        return round(float(self._rng.uniform(scale.low, scale.high)), 1)

    def _choice(self, values: Sequence[str]) -> str:
        return values[int(self._rng.integers(len(values)))]


def _said(mean: float | None) -> str:
    return "unknown" if mean is None else f"{mean:.1f}"
