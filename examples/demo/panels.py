"""The answers as HTML: every text from the catalogue or a model is escaped."""

from __future__ import annotations

from html import escape

from examples.demo.models import Contender, Shown

STYLE = """
.answers { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(100%,230px),1fr)); gap:14px; }
.answer { border:1px solid #8884; border-radius:8px; padding:12px 14px; min-width:0; }
.answer h3 { margin:0; font-size:1.05rem; }
.answer .soft { opacity:.7; font-size:.85rem; overflow-wrap:anywhere; }
.answer ol { padding-left:1.5em; margin:10px 0; }
.answer li { margin:0 0 8px; overflow-wrap:anywhere; list-style:decimal; }
.answer .why { display:block; opacity:.7; font-size:.82rem; }
.answer .score { float:right; font-variant-numeric:tabular-nums; opacity:.8; margin-left:8px; }
.answer .bar { display:block; height:6px; border-radius:3px; background:#0072B2; }
.answer .share { margin:4px 0; font-size:.85rem; }
.answer blockquote { margin:8px 0; padding-left:10px; border-left:3px solid #8886; white-space:pre-wrap; }
.answer blockquote { overflow-wrap:anywhere; }
.answer .rating { font-size:1.8rem; font-weight:700; }
"""


def recommendations(answers: list[tuple[Contender, Shown]], notes: list[str]) -> str:
    """One card a model, side by side on a desktop and below each other on a phone."""
    cards = "".join(_card(contender, shown) for contender, shown in answers)
    notes = ["Scores compare the items of one list, not lists with each other.", *notes]
    return f'<div class="answers">{cards}</div>{_notes(notes)}'


def _card(contender: Contender, shown: Shown) -> str:
    items = "".join(
        f'<li><span class="score">{item.score:.3f}</span>{escape(item.title)}'
        + (f'<span class="why">near {_near(item.why)}</span>' if item.why else "")
        + "</li>"
        for item in shown.items
    )
    fallback = '<p class="soft">Nothing of this history is known to the model: most bought items.</p>'
    return (
        f'<section class="answer"><h3>{escape(contender.role)}</h3>'
        f'<div class="soft">{escape(contender.detail)} · {shown.milliseconds:.0f} ms</div>'
        f"{fallback if shown.fallback else ''}<ol>{items}</ol>{_attention(shown.attention)}</section>"
    )


def _near(why: list[tuple[str, float]]) -> str:
    return ", ".join(f"{escape(title)} ({cosine:.2f})" for title, cosine in why)


def _attention(shares: list[tuple[str, float]] | None) -> str:
    if shares is None:
        return ""
    rows = "".join(
        f'<div class="share">{escape(title)} {share:.0%}<span class="bar" style="width:{100 * share:.1f}%">'
        "</span></div>"
        for title, share in shares
    )
    return f'<details><summary class="soft">Where the latent was read from</summary>{rows}</details>'


def ratings(answers: list[tuple[str, str, str, str, float]], notes: list[str]) -> str:
    """Cards of (role, detail, rating, reasoning, milliseconds; negative for none)."""
    cards = "".join(
        f'<section class="answer"><h3>{escape(role)}</h3><div class="soft">{escape(detail)}'
        + (f" · {milliseconds:.0f} ms" if milliseconds >= 0 else "")
        + f'</div><div class="rating">{escape(rating)}</div>'
        + (f"<blockquote>{escape(reasoning)}</blockquote>" if reasoning else "")
        + "</section>"
        for role, detail, rating, reasoning, milliseconds in answers
    )
    return f'<div class="answers">{cards}</div>{_notes(notes)}'


def _notes(notes: list[str]) -> str:
    return "".join(f'<p class="soft">{escape(note)}</p>' for note in notes)
