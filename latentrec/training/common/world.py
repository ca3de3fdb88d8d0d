"""How many processes train together."""

from __future__ import annotations

import os


def world_size() -> int:
    """Processes of this training: ``WORLD_SIZE`` of ``torchrun`` or ``accelerate launch``, else 1."""
    return int(os.environ.get("WORLD_SIZE", "1"))
