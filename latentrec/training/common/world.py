"""How many processes train together."""

from __future__ import annotations

import os
import sys

from latentrec.core import UserError


def world_size() -> int:
    """Processes of this training: ``WORLD_SIZE`` of ``torchrun`` or ``accelerate launch``, else 1."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this process writes checkpoints and outputs: rank 0 of several, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def check_share(what: str, total: int, processes: int, passes: str, count: int, *, unit: int = 1) -> None:
    """Refuse an optimizer batch that the processes cannot share evenly.

    Args:
        what: the field and its value, for the message: ``sft.batch_size is 100``.
        total: rows of the batch.
        processes: of this training.
        passes, count: name and value of the field that divides each process's share.
        unit: what one row counts in the field, where it counts something smaller.

    Raises:
        UserError: ``total`` is no multiple of ``processes`` × ``count``.
    """
    share = processes * count
    if total % share:
        raise UserError(
            f"{what}, which {processes} processes x {passes} {count} cannot share evenly; use a multiple of "
            f"{share * unit}",
            code="config.conflict",
        )


def check_enough(what: str, total: int, processes: int) -> None:
    """Refuse an optimizer batch with less to share than there are processes.

    Args:
        what: the field and its value, for the message.
        total: targets of the batch.
        processes: of this training.

    Raises:
        UserError: some processes would have nothing to do.
    """
    if total < processes:
        raise UserError(
            f"{what}, fewer than the {processes} processes that share a step; use at least {processes}",
            code="config.conflict",
        )


def leave_process_group() -> None:
    """End the threads of ``torch.distributed``, where it was begun, before the interpreter ends.

    Gloo's threads abort a process that ends without it ("terminate called without an active exception", now
    and then), and ``torchrun`` takes a finished training for a failed one.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
