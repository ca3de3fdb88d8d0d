"""Whether a GGUF file's own counts fit into the file, before a reader believes them.

The package ``gguf`` reads past the end of a file without an error: one array that claims 2^60 elements, in a
file of a hundred bytes, takes all the memory there is. Source of the layout: ggml's ``docs/gguf.md``.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from latentrec.core import UserError

_STRING, _ARRAY = 8, 9
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value, by its type."""
_MOST_DIMENSIONS = 8
_DEEPEST = 4


def check_gguf_header(path: Path, name: str) -> None:
    """Walk through keys, values and the table of tensors.

    Raises:
        UserError: a count, a length or an offset does not fit into the file.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            _Walk(data).file()
        except (struct.error, ValueError) as error:
            reason = "it ends too early" if isinstance(error, struct.error) else str(error)
            raise UserError(
                f"backbone '{name}' cannot be loaded: {reason} (the file is damaged; fetch it again)",
                code="backbone.unsupported",
            ) from None


class _Walk:
    def __init__(self, data: mmap.mmap):
        self._data, self._place = data, 4
        (version,) = struct.unpack_from("<I", data, 4)
        self._order = ">" if version & 0xFFFF == 0 else "<"

    def file(self) -> None:
        """The whole header."""
        self._number("I")
        tensors, fields = self._number("Q"), self._number("Q")
        self._fits(tensors, 25, "tensors")
        self._fits(fields, 13, "keys")
        for _ in range(fields):
            self._text()
            self._value(self._number("I"), 0)
        for _ in range(tensors):
            self._text()
            dimensions = self._number("I")
            if dimensions > _MOST_DIMENSIONS:
                raise ValueError(f"a tensor has {dimensions:,} dimensions")
            elements = 1
            for _ in range(dimensions):
                elements *= self._number("Q")
            self._number("I")
            # A weight of the coarsest quantization takes more than an eighth of a byte.
            if self._number("Q") > len(self._data) or elements > 8 * len(self._data):
                raise ValueError("a tensor lies outside the file")

    def _value(self, kind: int, depth: int) -> None:
        if kind == _STRING:
            self._text()
        elif kind == _ARRAY:
            inner, count = self._number("I"), self._number("Q")
            self._fits(count, _SIZES.get(inner, 8), "elements in an array")
            if inner in _SIZES:
                self._skip(count * _SIZES[inner])
            elif depth >= _DEEPEST:
                raise ValueError("its arrays are nested too deeply")
            else:
                for _ in range(count):
                    self._value(inner, depth + 1)
        elif kind in _SIZES:
            self._skip(_SIZES[kind])
        else:
            raise ValueError(f"a value is of the unknown type {kind}")

    def _number(self, form: str) -> int:
        (found,) = struct.unpack_from(self._order + form, self._data, self._place)
        self._place += struct.calcsize(form)
        return found

    def _text(self) -> None:
        self._skip(self._number("Q"))

    def _skip(self, count: int) -> None:
        self._fits(count, 1, "bytes of text")
        self._place += count

    def _fits(self, count: int, least: int, what: str) -> None:
        if count * least > len(self._data) - self._place:
            raise ValueError(f"it claims {count:,} {what}, more than it has room for")
