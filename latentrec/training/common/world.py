"""How many processes train together."""

from __future__ import annotations

import os
import sys


def world_size() -> int:
    """Processes of this training: ``WORLD_SIZE`` of ``torchrun`` or ``accelerate launch``, else 1."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def leave_process_group() -> None:
    """End the threads of ``torch.distributed``, where it was begun, before the interpreter ends.

    Gloo's threads abort a process that ends without it ("terminate called without an active exception", now
    and then), and ``torchrun`` takes a finished training for a failed one.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
