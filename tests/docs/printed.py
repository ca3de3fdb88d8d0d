"""What a page shows as a command's output, held against what the command prints today.

Figures, keys, titles, times and ids come from a model and a moment; the rest must be there to the letter. The
keys and titles shown must be those of the shop that the command ran on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

FORMS = (
    (re.compile(r"\b[a-z0-9]+-\d{8}-\d{6}-[0-9a-f]{6}\b"), "RUN"),
    (re.compile(r"\b[a-z0-9]+(?:-\d+){7}\b"), "RUN"),
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d"), "TIME"),
    (re.compile(r"-?\d+\.\d+(?:e-?\d+)?"), "FIGURE"),
    (re.compile(r"\b\d+(?= (?:samples|users|s|ms)\b)"), "COUNT"),
    (re.compile(r"\bB0[0-9A-Z]{8}\b"), "KEY"),
    (re.compile(r"[ \t]+"), " "),
)
"""What differs between two machines or days, and the word that stands for it."""


def form(text: str, titles: Mapping[str, str]) -> str:
    """A text with what may differ replaced by words.

    Args:
        text: shown or printed.
        titles: item key → title of the shop.

    >>> form("  1  B0P3AO0OGT  -0.52  Falken Capo", {"B0P3AO0OGT": "Falken Capo"})
    ' 1 KEY FIGURE TITLE'
    """
    for title in sorted(set(titles.values()), key=len, reverse=True):
        text = text.replace(title, "TITLE")
    for pattern, word in FORMS:
        text = pattern.sub(word, text)
    return text


def differences(shown: str, printed: str, titles: Mapping[str, str]) -> list[str]:
    """Why the output shown is none that today's command prints; empty: it is.

    Each line shown must be a line printed, in order; ``…`` stands for anything.
    """
    found = [
        f"{key} is no item of the shop"
        for key in re.findall(r"\bB0[0-9A-Z]{8}\b", shown)
        if key not in titles
    ]
    for key, title in re.findall(r"\b(B0[0-9A-Z]{8})\s+-?\d+\.\d+\s+(.+?)\s*$", shown, re.MULTILINE):
        if titles.get(key, title) != title:
            found.append(f"{key} is '{titles[key]}', not '{title}'")
    lines = iter([form(line, titles).strip() for line in printed.splitlines()])
    for line in filter(None, (form(line, titles).strip() for line in shown.splitlines())):
        pattern = re.compile(".*".join(map(re.escape, line.split("…"))))
        if not any(pattern.fullmatch(candidate) for candidate in lines):
            return [*found, f"no line printed is like: {line}"]
    return found


def rewritten(page: str, shown: str, printed: str) -> str:
    """The page with the block shown replaced by what is printed today; one that leaves parts out stays."""
    if "…" in shown:
        return page
    assert page.count(f"```\n{shown}```") == 1, shown
    return page.replace(f"```\n{shown}```", f"```\n{printed.rstrip()}\n```")
