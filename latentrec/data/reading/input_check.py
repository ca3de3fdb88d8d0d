"""Inputs before they are read: there, of a known format, and fingerprinted; the same after they were read.

Preflight and data preparation both come through here, so that they accept the same files, and data
preparation notices when it is about to read something else than preflight has seen.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable

from latentrec.core import UserError
from latentrec.core.redact import redact
from latentrec.data.reading.formats import recognize_reviews
from latentrec.data.reading.input_files import InputFile, find_inputs, first_block
from latentrec.data.reading.metadata_formats import recognize_metadata
from latentrec.storage import input_fingerprint, store_for

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def recognize_inputs(reviews: tuple[str, ...], metadata: tuple[str, ...]) -> list[str]:
    """Names of the formats of every input, from the first lines of each.

    Raises:
        UserError: an input is missing, empty, damaged at its head or of no known format.
    """
    names = [recognize_reviews(first_block(file)).name for file in find_inputs(reviews)]
    return names + [recognize_metadata(first_block(file))[0].name for file in find_inputs(metadata)]


def fingerprint_inputs(reviews: tuple[str, ...], metadata: tuple[str, ...]) -> str:
    """A hash (64 hexadecimal digits) that changes when the content behind the inputs does.

    Raises:
        UserError: an input is not there.
    """
    body = [["reviews", input_fingerprint(reviews)], ["metadata", input_fingerprint(metadata)]]
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()


def require_fingerprint(reviews: tuple[str, ...], metadata: tuple[str, ...], expected: str) -> None:
    """Raise if the inputs have changed since preflight computed their fingerprint.

    Args:
        reviews: locations.
        metadata: locations.
        expected: preflight's fingerprint; anything that is none (a component run by itself) is not compared.

    Raises:
        UserError: the content behind a name has changed since.
    """
    if not _FINGERPRINT.fullmatch(expected):
        return
    found = fingerprint_inputs(reviews, metadata)
    if found != expected:
        names = ", ".join(redact(uri) for uri in (*reviews, *metadata))
        raise UserError(
            f"{names}: changed since preflight (inputs_fingerprint {expected[:12]}…, now {found[:12]}…); "
            "start the run again when nothing writes there any more",
            code="reviews.changed",
        )


def versions_of(files: Iterable[InputFile]) -> dict[str, str]:
    """Version of each file as the store tells it; empty text where a file has gone."""
    return {file.uri: info.version if (info := store_for(file.uri).stat(file.uri)) else "" for file in files}


def require_unchanged(before: dict[str, str]) -> None:
    """Refuse what was read when a file was written to meanwhile.

    Raises:
        UserError: names the file.
    """
    for uri, version in before.items():
        info = store_for(uri).stat(uri)
        if info is None or info.version != version:
            raise UserError(
                f"{uri}: changed while it was read; start again when nothing writes there any more",
                code="reviews.changed",
            )
