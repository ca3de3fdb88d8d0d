"""Counts of a GGUF file that do not fit into it are refused before a reader believes them."""

import struct

import pytest

from latentrec.models.gguf_header import check_gguf_header
from tests.errors import refused


def text(value: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "Q", len(value)) + value


def header(fields: bytes, *, count: int = 1, tensors: int = 0, order: str = "<") -> bytes:
    return b"GGUF" + struct.pack(order + "IQQ", 3, tensors, count) + fields


def array(kind: int, count: int, body: bytes = b"") -> bytes:
    return text(b"a") + struct.pack("<IIQ", 9, kind, count) + body


TENSOR = text(b"w") + struct.pack("<IQIQ", 1, 4, 0, 0)
SOUND = {
    "array of texts": header(array(8, 2, text(b"x") + text(b"y"))),
    "number and text": header(
        text(b"n") + struct.pack("<II", 4, 7) + text(b"t") + struct.pack("<I", 8) + text(b"v"), count=2
    ),
    "tensor": header(b"", count=0, tensors=1) + TENSOR + b"0" * 16,
    "big-endian": header(text(b"n", ">") + struct.pack(">II", 4, 7), order=">"),
}
HOSTILE = {
    "elements": (header(array(0, 1 << 60)), "1,152,921,504,606,846,976 elements in an array"),
    "empty texts": (header(array(8, 1 << 40)), "elements in an array"),
    "keys": (header(b"", count=1 << 50), "keys, more than it has room for"),
    "tensors": (header(b"", count=0, tensors=1 << 50), "tensors, more than it has room for"),
    "text": (header(struct.pack("<Q", 1 << 62) + b"a" * 16), "bytes of text"),
    "nesting": (
        header(text(b"a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 30),
        "nested too deeply",
    ),
    "type": (header(text(b"a") + struct.pack("<I", 99) + b"0" * 8), "the unknown type 99"),
    "cut": (header(array(8, 2, text(b"x") + text(b"y")))[:-3], "more than it has room for"),
    "no header": (b"GGUF\3\0\0\0", "ends too early"),
    "dimensions": (
        header(b"", count=0, tensors=1) + text(b"w") + struct.pack("<I", 1 << 30) + b"0" * 64,
        "dimensions",
    ),
    "weights": (
        header(b"", count=0, tensors=1) + text(b"w") + struct.pack("<IQQIQ", 2, 1 << 40, 1 << 40, 0, 0),
        "outside the file",
    ),
}


@pytest.mark.parametrize("kind", SOUND)
def test_sound_header_passes(tmp_path, kind):
    (tmp_path / "m.gguf").write_bytes(SOUND[kind])
    check_gguf_header(tmp_path / "m.gguf", "m")


@pytest.mark.parametrize("kind", HOSTILE)
def test_count_that_does_not_fit_is_refused(tmp_path, kind):
    data, reason = HOSTILE[kind]
    (tmp_path / "m.gguf").write_bytes(data)
    with refused("backbone.unsupported", reason):
        check_gguf_header(tmp_path / "m.gguf", "m")
