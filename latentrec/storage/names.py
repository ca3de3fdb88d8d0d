"""Names of files that come from outside (a manifest, a checkpoint index, a listing), checked in one place.

A name becomes a path below a folder of ours. A name such as ``../x`` or ``/etc/passwd`` would read, write or
delete somewhere else, so every reader of such a document passes its names through here first.
"""

from __future__ import annotations

import re
from typing import Any

from latentrec.core import UserError

MAX_NAME_BYTES = 1024
MAX_FILE_BYTES = 1 << 50
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check_relative_name(name: Any, where: str) -> str:
    """``name`` as a relative path of plain parts, or an error.

    Args:
        name: as it stands in the document.
        where: the document, for the message.

    Raises:
        UserError: not text, empty, absolute, too long, with a backslash or a control character, or a part of
            it is empty, ``.`` or ``..``.
    """
    if not isinstance(name, str) or not name:
        raise UserError(f"{where}: the file name {_shown(name)} is not a name", code="manifest.bad_file_name")
    parts = name.split("/")
    bad = (
        any(part in ("", ".", "..") for part in parts)
        or "\\" in name
        or _CONTROL.search(name) is not None
        or len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES
        or not _is_encodable(name)
    )
    if bad:
        raise UserError(
            f"{where}: the file name {_shown(name)} would lead outside the folder or is not a plain "
            "relative name; do not use this folder, run the step that makes it again",
            code="manifest.bad_file_name",
        )
    return name


def check_file_entries(entries: Any, where: str, code: str = "manifest.invalid") -> dict[str, dict[str, Any]]:
    """The ``files`` entry of a manifest or an index: name → ``bytes``, ``sha256`` and perhaps ``crc32c``.

    ``code`` is the error's for another shape: a manifest and an index of checkpoints have one each.

    Raises:
        UserError: it has another shape, or a name leads outside.
    """
    if not isinstance(entries, dict):
        raise UserError(
            f"{where}: 'files' is {_shown(entries)}, expected an object of file names",
            code=code,
        )
    for name, entry in entries.items():
        check_relative_name(name, where)
        if not isinstance(entry, dict):
            raise UserError(
                f"{where}: files[{name!r}] is {_shown(entry)}, expected bytes and sha256",
                code=code,
            )
        size, digest = entry.get("bytes"), entry.get("sha256")
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MAX_FILE_BYTES:
            raise UserError(
                f"{where}: files[{name!r}].bytes is {_shown(size)}, expected a number of bytes",
                code=code,
            )
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise UserError(
                f"{where}: files[{name!r}].sha256 is {_shown(digest)}, expected 64 hex digits",
                code=code,
            )
        if not isinstance(entry.get("crc32c", ""), str):
            raise UserError(
                f"{where}: files[{name!r}].crc32c is {_shown(entry['crc32c'])}, expected text",
                code=code,
            )
    return entries


def _is_encodable(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
