"""What README and guides say of gains is a row of the generated tables, with its interval over seeds and
users."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "docs/latentr3.md",
    "docs/estimator.md",
    "docs/lares.md",
    "docs/research/latent-controls.md",
)
NUMBER = r"[+-]\d+(?:\.\d+)?"
WITH_INTERVAL = re.compile(rf"({NUMBER}) ?(%)?\*{{0,2}} \[({NUMBER}) ?%?, ({NUMBER}) ?%?\]")
PERCENT = re.compile(r"(?<![\w.])\+\d+(?:\.\d+)? ?%")
PUBLISHED = ("+17.0 % over BIGRec", "+8.4 % over D3")
"""Gains that the papers report; ours is said beside them."""


def text_of(page):
    """A page with ASCII minus signs and one space between words."""
    return re.sub(r"\s+", " ", (ROOT / page).read_text(encoding="utf-8").replace("−", "-"))


def tables():
    """All (value, percent sign, low, high) of the generated tables."""
    study = text_of("docs/research/latent-controls.md")
    generated = text_of("docs/results.md") + study[study.index("<!-- tables: begin -->") :]
    return {match.groups() for match in WITH_INTERVAL.finditer(generated)}


def by_hand(page):
    """What a person wrote of a page: not its generated part."""
    text = text_of(page)
    for name in ("tables", "figures"):
        text = re.sub(rf"<!-- {name}: begin -->.*<!-- {name}: end -->", "", text)
    return text


def without_interval(text):
    """Percentages of gain that no interval follows, each with what stands before it."""
    rest = WITH_INTERVAL.sub("", text)
    return [rest[max(0, match.start() - 60) : match.end()] for match in PERCENT.finditer(rest)]


@pytest.mark.parametrize("page", PAGES)
def test_each_gain_is_a_row_of_the_generated_tables(page):
    rows = tables()
    said = {match.groups(): match.group() for match in WITH_INTERVAL.finditer(by_hand(page))}
    assert {text for figures, text in said.items() if figures not in rows} == set()


@pytest.mark.parametrize("page", PAGES)
def test_no_gain_goes_without_its_interval(page):
    text = by_hand(page)
    for published in PUBLISHED:
        text = text.replace(published, "")
    assert without_interval(text) == []


def test_the_guard_sees_a_gain_that_no_table_has():
    assert WITH_INTERVAL.search("gains +99.9 % [+1.0 %, +200.0 %] here").groups() not in tables()
    assert without_interval("gains +99.9 % here")
    assert not without_interval("gains +9.9 % [+1.0 %, +20.0 %]")
    assert len(tables()) > 300
