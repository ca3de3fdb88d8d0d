"""JSON from outside: whatever is wrong with it is one kind of error, in one line."""

from __future__ import annotations

import json
from typing import Any


def parse_document(data: bytes | str) -> Any:
    """The value that a JSON document holds.

    Raises:
        ValueError: not UTF-8, not JSON, a number of thousands of digits, or nested too deeply for the parser
            (which raises no ``ValueError`` by itself).
    """
    try:
        return json.loads(data.decode("utf-8") if isinstance(data, bytes) else data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1:,}") from None
