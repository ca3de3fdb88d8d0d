"""What strangers wrote neither steers a terminal nor becomes markup."""

import pytest

from latentrec.core.text import markdown_code, markdown_text, printable

NASTY = "\x1b[2Jred \u202eevil\u202c \u2066x\u2069 \x07\x9b31m \ud83c \u2028next\nline\x7f"


def test_nothing_steers_a_terminal():
    shown = printable(NASTY)
    assert shown.isprintable()
    assert "\\x1b[2J" in shown
    assert "\\u202e" in shown
    assert "\\ud83c" in shown
    shown.encode("utf-8")


def test_ordinary_text_stays():
    for text in ("Café Ünïcode – 日本語 😀", "a b", "", "it's 100 % 'fine'"):
        assert printable(text) == text
    assert printable("a\n\tb", lines=True) == "a\n\tb"
    assert printable("a\nb") == "a\\x0ab"


@pytest.mark.parametrize(
    "text",
    ["<img src=x onerror=alert(1)>", "[a](http://e.org)", "![i](x)", "a | b", "**b** _i_ `c`", "# h\n- l"],
)
def test_markdown_holds_no_markup(text):
    shown = markdown_text(text)
    for sign in ("<", ">", "\n"):
        assert sign not in shown
    for place, sign in enumerate(shown):
        if sign in "[]()*_`|#!":
            assert shown[place - 1] == "\\"


def test_markdown_code_cannot_be_left():
    assert markdown_code("a.json") == "`a.json`"
    assert markdown_code("a`b") == "``a`b``"
    assert markdown_code("`") == "`` ` ``"
    assert "\n" not in markdown_code("a\n| b")
    assert "|" not in markdown_code("a | b")
