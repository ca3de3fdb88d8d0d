"""Titles as shops write them."""

import pytest

from latentrec.data.titles import clean_text, clean_title, has_html, is_usable

JUNK = '<span class="a-size-medium a-color-secondary a-text-normal'


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Salt &amp; Pepper", "Salt & Pepper"),
        ("Salt &amp;amp; Pepper", "Salt & Pepper"),
        ("12&quot; Vinyl", '12" Vinyl'),
        ("  two \t  words\n", "two words"),
        ('"Quoted"', "Quoted"),
        ('7" and 12"', '7" and 12"'),
        ("Caf\u00e9\u200b", "Café"),
        ("AT&T", "AT&T"),
        ("", ""),
    ],
)
def test_clean_title(raw, clean):
    assert clean_title(raw) == clean


@pytest.mark.parametrize(
    ("title", "html"),
    [
        (JUNK, True),
        ('<span id="productTitle">Guitar</span>', True),
        ("Guitar <b>new</b>", True),
        ("var aPageStart = (new Date()).getTime();", True),
        ("I <3 Dogs", False),
        ("A < B > C", False),
        ("Plain", False),
    ],
)
def test_has_html(title, html):
    assert has_html(title) is html


@pytest.mark.parametrize(
    ("title", "strict", "paper"),
    [
        ("Guitar", True, True),
        ("", False, False),
        ("X", True, False),
        (JUNK, False, True),
        ('<span id="productTitle">Guitar</span>', False, False),
        (" ".join(["word"] * 20), True, True),
        (" ".join(["word"] * 21), True, False),
    ],
)
def test_filters_drop_what_the_contract_says(title, strict, paper):
    assert is_usable(title, "strict", None) is strict
    assert is_usable(title, "paper", None) is paper
    assert is_usable(title, "none", None)


def test_title_length_is_a_setting_of_its_own():
    assert not is_usable("one two three", "strict", 2)
    assert is_usable("one two three", "paper", 3)
    assert is_usable(" ".join(["word"] * 21), "paper", 25)


def test_clean_text_drops_tags_and_cuts():
    assert clean_text("<p>One&nbsp;two</p> &lt;three") == "One two"
    assert clean_text("a" * 3000) == "a" * 2000
