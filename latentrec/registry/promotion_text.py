"""The promotion history as people read it: on MLflow's pages of the model and of each version."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from latentrec.core.text import markdown_text
from latentrec.registry.model_card import MAX_DESCRIPTION, SHORTENED

_HEADING = "\n\n## Promotions\n"
_NEWEST = 15
_LONGEST_REASON = 200
_WORDS = {"rolled_back": "rolled back", "moved": "moved by hand"}


@dataclass(frozen=True)
class PromotionEvent:
    """One entry of the history.

    Attributes:
        number: 1, 2, … in order.
        action: ``promoted``, ``refused``, ``rolled_back`` or ``moved`` (by hand).
        alias: that moved, or was to move.
        version: that the event is about.
        replaced: version that the alias pointed at before; ``None``: it pointed at nothing.
        reason: one sentence.
        time: UTC seconds.
        by: who: the pipeline run, or the user of a command.
    """

    number: int
    action: str
    alias: str
    version: str
    replaced: str | None
    reason: str
    time: float
    by: str


def model_description(current: str | None, events: Sequence[PromotionEvent]) -> str:
    """A registered model's description: what people wrote there, then its promotions, newest first."""
    return _below(_without_history(current), events)


def version_description(current: str | None, version: str, events: Sequence[PromotionEvent]) -> str:
    """A version's description: its card, and after the card's verdict what has happened to the version since.

    The rest of a card that grows too long gives way, whole sections from the end: the card is a file too.
    """
    # What was refused beside a champion has not happened to the champion.
    own = [
        event
        for event in events
        if version == event.version or (version == event.replaced and event.action != "refused")
    ]
    first, *sections = _without_history(current).split("\n\n## ")
    text = _below(first, own, most=MAX_DESCRIPTION // 2)
    for section in sections:
        if len(text) + len(section) + len(SHORTENED) + 5 > MAX_DESCRIPTION:
            return text + SHORTENED
        text += f"\n\n## {section}"
    return text


def _below(text: str, events: Sequence[PromotionEvent], most: int = MAX_DESCRIPTION) -> str:
    rows: list[str] = []
    head = f"{_HEADING}| time (UTC) | what | by | why |\n|---|---|---|---|"
    left = most - len(text) - len(head)
    for event in list(reversed(events))[:_NEWEST]:
        row = _row(event)
        left -= len(row) + 1
        if left < 0:
            break
        rows.append(row)
    return "\n".join([text + head, *rows]) if rows else text


def _without_history(text: str | None) -> str:
    before, heading, after = (text or "").partition(_HEADING)
    if not heading:
        return before
    _, more, rest = after.partition("\n\n## ")
    return f"{before}\n\n## {rest}" if more else before


def _row(event: PromotionEvent) -> str:
    moved = f"{event.alias} → version {event.version}"
    if event.action == "refused":
        moved = f"version {event.version}, {event.alias} stays version {event.replaced or '–'}"
    elif event.replaced and event.replaced != event.version:
        moved += f" (was version {event.replaced})"
    reason = (
        event.reason if len(event.reason) <= _LONGEST_REASON else event.reason[: _LONGEST_REASON - 1] + "…"
    )
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(event.time))
    what = f"**{_WORDS.get(event.action, event.action)}** {moved}"
    return f"| {at} | {what} | {markdown_text(event.by)} | {markdown_text(reason)} |"
