"""Untrusted text, made safe for where it is shown: terminal, HTML, Markdown."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import unicodedata
from collections.abc import Iterator
from typing import TextIO

_BIDI = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_SEPARATORS = set("\u2028\u2029\u0085")
_MARKDOWN = re.compile(r"([\\`*_\[\]()#|~!])")


def printable(text: str, *, lines: bool = False) -> str:
    """The text with everything written out that could steer a terminal or turn its order around.

    Control characters (escape sequences begin with one), bidirectional overrides, line separators, lone
    surrogates and unassigned code points become ``\\x1b``, ``\\u202e`` and the like.

    Args:
        text: anything.
        lines: keep line breaks and tabs.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        sign if _is_harmless(sign) or (lines and sign in "\n\t") else _escaped(sign) for sign in text
    )


class PrintableStream(io.TextIOBase):
    """Standard output through :func:`printable`; signs that the terminal's encoding lacks are written out.

    What a command prints holds item keys, titles and answers of servers; none of them may steer a terminal.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, line breaks and tabs kept."""
        shown = printable(text, lines=True)
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._stream.write(shown.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        """Flush the stream behind."""
        self._stream.flush()

    def isatty(self) -> bool:
        """Delegates to the wrapped stream."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Delegates to the wrapped stream."""
        return self._stream.fileno()


@contextlib.contextmanager
def printable_output() -> Iterator[None]:
    """Let everything printed meanwhile go through a :class:`PrintableStream`."""
    with contextlib.redirect_stdout(PrintableStream(sys.stdout)):
        yield


def one_line(error: BaseException) -> str:
    """What an error says, in one line that can be shown; libraries' messages may have several."""
    text = " ".join(printable(str(error), lines=True).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"


def markdown_text(text: str) -> str:
    """The text as one line of Markdown that shows it as it is: no markup, no HTML, no table cell's end."""
    flat = " ".join(printable(text, lines=True).split())
    return _MARKDOWN.sub(r"\\\1", flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def markdown_prose(text: str) -> str:
    """A sentence of ours in Markdown: nothing becomes emphasis, code, a tag or a table cell's end.

    Brackets stay as they are, so that intervals can be read in the file too; text of others goes through
    :func:`markdown_text`. ``a_b_c`` is emphasis to some readers (Kubeflow's page), though not to CommonMark.
    """
    return re.sub(r"([\\*_`|])", r"\\\1", text).replace("<", "&lt;")


def markdown_code(text: str) -> str:
    """The text as inline code of Markdown, also inside a table cell."""
    flat = " ".join(printable(text, lines=True).split()).replace("|", "¦")
    ticks = "`" * (max((len(run) for run in re.findall(r"`+", flat)), default=0) + 1)
    pad = " " if flat.startswith("`") or flat.endswith("`") else ""
    return f"{ticks}{pad}{flat}{pad}{ticks}" if flat else "``"


def _is_harmless(sign: str) -> bool:
    if sign in _BIDI or sign in _SEPARATORS:
        return False
    return unicodedata.category(sign) not in ("Cc", "Cs", "Cn", "Co")


def _escaped(sign: str) -> str:
    code = ord(sign)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
