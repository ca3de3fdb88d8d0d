"""What a refusal is recognized by: its code, and the names and values that the message must hold."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from latentrec.core import UserError


@contextmanager
def refused(
    code: str, *named: str, error: type[Exception] = UserError
) -> Iterator[pytest.ExceptionInfo[Exception]]:
    """An error of this class and code is raised, whose message names each of ``named``."""
    with pytest.raises(error) as caught:
        yield caught
    assert getattr(caught.value, "code", None) == code, caught.value
    for name in named:
        assert name in str(caught.value), caught.value
