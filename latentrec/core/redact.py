"""Secrets in locations: a signed URL's query and a URL's password are never written or shown.

Whatever a run leaves behind (manifest, report, status, MLflow, model card, log) passes through here first. A
location that is used keeps its secret; a location that is printed has none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_USER = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*://)[^/\s?#]*@")
_QUERY = re.compile(
    r"(?P<base>\b(?!file:|sqlite:)[A-Za-z][A-Za-z0-9+.\-]*://[^\s?#]*)"
    r"(?:\?|#(?!/[\w/.\-]*(?:[\s'\",;:)\]}>]|$)))"  # "#/runs/details/ID" is a page of KFP's, no secret
    r"\S*?(?P<end>['\",;:)\]}>.]*)(?=\s|$)"
)
_RELATIVE_QUERY = re.compile(r"(?P<base>\burl: /[^\s?#]*)\?\S*?(?P<end>['\",;:)\]}>.]*)(?=\s|$)")
HIDDEN = "?…"


def redact(text: str) -> str:
    """The text with user names, passwords, queries and fragments taken out of every URL in it."""
    if "://" not in text and "url: /" not in text:
        return text
    text = _USER.sub(r"\g<scheme>", text)
    shown = r"\g<base>" + HIDDEN + r"\g<end>"
    return _RELATIVE_QUERY.sub(shown, _QUERY.sub(shown, text))


def redact_values(value: Any) -> Any:
    """The same for every text in nested mappings, lists and tuples; other values as they are."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact_values(key): redact_values(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(redact_values(entry) for entry in value) if type(value) in (list, tuple) else value
    return value
