"""Random numbers of a batch that several processes share: the ones that a single process would draw.

Each process draws the whole batch's numbers, from a generator in the same state as everybody's, and keeps
those of its own rows. So dropout, initial states and noise do not change with the number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Part:
    """The rows of a batch that this process computes.

    Attributes:
        total: rows of the whole batch.
        rows: int64 (R,) on the CPU, ascending; never empty.
        counts: ``False`` where this process has none, and computes one for the sake of its random numbers.
    """

    total: int
    rows: Tensor
    counts: bool = True


_part: ContextVar[Part | None] = ContextVar("part", default=None)


@contextmanager
def rows_of(part: Part) -> Iterator[None]:
    """What is drawn by :func:`drawn` inside belongs to the rows of ``part``."""
    token = _part.set(None if len(part.rows) == part.total else part)
    try:
        yield
    finally:
        _part.reset(token)


def is_part() -> bool:
    """Whether only some of a batch's rows are computed here."""
    return _part.get() is not None


def drawn(draw: Callable[[tuple[int, ...]], Tensor], shape: tuple[int, ...]) -> Tensor:
    """Random numbers of ``shape``, whose first dimension counts the rows computed here.

    Args:
        draw: makes a tensor of the shape it is given.
        shape: wanted.
    """
    part = _part.get()
    if part is None:
        return draw(shape)
    assert shape[0] == len(part.rows), f"{shape[0]} rows, expected {len(part.rows)} of {part.total}"
    whole = draw((part.total, *shape[1:]))
    return whole.index_select(0, part.rows.to(whole.device))
