"""Titles as shops write them, made readable; and which of them are usable."""

from __future__ import annotations

import html
import re

_TAG = re.compile(r"<[/!]?[a-zA-Z][^>]*>?|<!--.*?(-->|$)")
_SCRIPT = re.compile(r"var aPageStart|getTime\(\)|function\s*\(")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
_SPACE = re.compile(r"\s+")


def clean_title(raw: str) -> str:
    """Unescape entities (twice: ``&amp;amp;`` occurs), drop control characters, collapse white space.

    Quotes around the whole title go as well, as in the published recipe. Tags stay: filters decide on them.
    """
    text = raw
    if "&" in text:
        text = html.unescape(html.unescape(text))
    text = _SPACE.sub(" ", _CONTROL.sub(" ", text)).strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1].strip()
    return text


def has_html(title: str) -> bool:
    """Whether a tag (closed or cut off) or page script stands in the title; ``<3`` is no tag."""
    return ("<" in title and _TAG.search(title) is not None) or _SCRIPT.search(title) is not None


def is_usable(title: str, title_filter: str, max_words: int | None) -> bool:
    """Whether an item with this cleaned title stays.

    ``strict``: not empty, no HTML. ``paper``: more than one character, no ``<span id``, at most 20 words
    (words are what single spaces separate). ``none``: always. ``max_words`` holds for all but ``none``.
    """
    if title_filter == "none":
        return True
    if max_words is not None and len(title.split(" ")) > max_words:
        return False
    if title_filter == "paper":
        return len(title) > 1 and "<span id" not in title and len(title.split(" ")) <= (max_words or 20)
    return bool(title) and not has_html(title)


def clean_text(raw: str, limit: int = 2000) -> str:
    """A description as plain text: entities unescaped, tags dropped, white space collapsed, cut."""
    text = html.unescape(html.unescape(raw)) if "&" in raw else raw
    text = _TAG.sub(" ", text) if "<" in text else text
    return _SPACE.sub(" ", _CONTROL.sub(" ", text)).strip()[:limit]
