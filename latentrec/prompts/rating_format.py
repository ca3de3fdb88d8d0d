"""The answer format of RecZero and RecOne, and a parser that accepts nothing else.

An answer is four sections, in this order, once each, none empty, with only white space around them::

    <analyze user>…</analyze user> <analyze item>…</analyze item> <match>…</match> <rate>4.5</rate>

The rate is a plain decimal number on the scale. ``4,5``, ``5/5``, ``+4``, ``4e0``, ``NaN`` and digits of
other scripts are not plain decimal numbers. (RecZero, arXiv 2510.23077, §3.2; the strictness is ours:
whatever the parser forgives, reinforcement learning will find.)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from latentrec.core import UserError

SECTIONS = ("analyze user", "analyze item", "match", "rate")
TAGS = tuple(tag for name in SECTIONS for tag in (f"<{name}>", f"</{name}>"))
FAULTS = (
    "missing_tag",
    "nested_tag",
    "repeated_tag",
    "wrong_order",
    "text_outside",
    "empty_section",
    "not_a_number",
    "out_of_scale",
)

TAG_PATTERN = re.compile("|".join(re.escape(tag) for tag in TAGS))
_NUMBER = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})?")


@dataclass(frozen=True)
class RatingScale:
    """Lowest and highest rating that may be given, both included."""

    low: float = 1.0
    high: float = 5.0

    def __post_init__(self) -> None:
        """Refuse an empty or unordered scale."""
        if not self.low < self.high:
            raise UserError(
                f"rating scale is {self.low} to {self.high}; its low end must be the lower one",
                code="config.bad_value",
            )

    @property
    def span(self) -> float:
        """The largest error possible: 4 on a scale of 1 to 5."""
        return self.high - self.low


@dataclass(frozen=True)
class RatingAnswer:
    """A valid answer: the three analyses, stripped, and the rating."""

    user: str
    item: str
    match: str
    rating: float

    @property
    def reasoning(self) -> str:
        """The three analyses as plain text, one a line."""
        return f"user: {self.user}\nitem: {self.item}\nmatch: {self.match}"


@dataclass(frozen=True)
class FormatFault:
    """Why a text is no valid answer: ``kind`` is one of :data:`FAULTS`, ``detail`` names the place."""

    kind: str
    detail: str


def render_answer(user: str, item: str, match: str, rating: float) -> str:
    """Write an answer in the format; ``rating`` with one decimal.

    Raises:
        UserError: a section is empty or holds a tag, so that the answer could not be read back.
    """
    bodies = (user, item, match, f"{rating:.1f}")
    for name, body in zip(SECTIONS, bodies, strict=True):
        if not body.strip() or TAG_PATTERN.search(body):
            raise UserError(
                f"section <{name}> is {body!r}; it must hold text and none of the format's tags",
                code="prompt.bad_section",
            )
    return " ".join(f"<{name}>{body.strip()}</{name}>" for name, body in zip(SECTIONS, bodies, strict=True))


def parse_answer(text: str, scale: RatingScale | None = None) -> RatingAnswer | FormatFault:
    """Read an answer, or say what is wrong with it; never raises, linear in the length of ``text``.

    Where several things are wrong, the fault is the first that applies in the order of :data:`FAULTS`.
    """
    scale = scale or RatingScale()
    found = list(TAG_PATTERN.finditer(text))
    fault = _tag_fault([match.group() for match in found])
    if fault is not None:
        return fault
    outside = [text[: found[0].start()], text[found[-1].end() :]]
    outside += [text[found[i].end() : found[i + 1].start()] for i in range(1, len(found) - 1, 2)]
    for piece in outside:
        if piece.strip():
            return FormatFault("text_outside", f"{_shorten(piece)} stands outside the sections")
    bodies = [text[found[i].end() : found[i + 1].start()].strip() for i in range(0, len(found), 2)]
    for name, body in zip(SECTIONS, bodies, strict=True):
        if not body:
            return FormatFault("empty_section", f"<{name}> is empty")
    user, item, match, rate = bodies
    if not _NUMBER.fullmatch(rate):
        return FormatFault("not_a_number", f"<rate> is {_shorten(rate)}")
    rating = float(rate)
    if not scale.low <= rating <= scale.high:
        return FormatFault("out_of_scale", f"<rate> is {rate}, the scale is {scale.low:g} to {scale.high:g}")
    return RatingAnswer(user=user, item=item, match=match, rating=rating)


def _tag_fault(tags: list[str]) -> FormatFault | None:
    if tuple(tags) == TAGS:
        return None
    for tag in TAGS:
        if tag not in tags:
            return FormatFault("missing_tag", f"{tag} is missing")
    is_open: str | None = None
    for tag in tags:
        if tag.startswith("</"):
            is_open = None
        elif is_open is not None:
            return FormatFault("nested_tag", f"{tag} opens inside {is_open}")
        else:
            is_open = tag
    for tag in TAGS:
        if tags.count(tag) > 1:
            return FormatFault("repeated_tag", f"{tag} occurs {tags.count(tag)} times")
    first = next(i for i, (tag, expected) in enumerate(zip(tags, TAGS, strict=True)) if tag != expected)
    return FormatFault("wrong_order", f"{tags[first]} stands where {TAGS[first]} belongs")


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 40 else text[:39] + "…")
