"""Which image a component runs in: registry and tag from the environment, or digests for a release.

``IMAGE_REGISTRY`` and ``IMAGE_TAG`` name the images that ``make images`` builds. With ``RELEASE=1`` the
digests that ``make push`` wrote to ``images.lock.json`` are used instead, and nothing else.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from latentrec import __version__
from latentrec.core import UserError

DEFAULT_REGISTRY = "localhost/latentrec"
IMAGES = ("preflight", "data-prep", "train", "evaluate", "register")
LOCK_VARIABLE = "IMAGE_LOCK"


def image(name: str) -> str:
    """Full name of a component image.

    Raises:
        UserError: a release is compiled without a lock, or the lock does not hold this image by digest.
    """
    assert name in IMAGES, name
    registry = os.environ.get("IMAGE_REGISTRY") or DEFAULT_REGISTRY
    if os.environ.get("RELEASE") == "1":
        return f"{registry}/{name}@{_digest(name, registry)}"
    tag = os.environ.get("IMAGE_TAG") or __version__
    if tag == "latest":
        raise UserError(
            "IMAGE_TAG is 'latest', which names another image tomorrow; use a version or git sha",
            code="images.moving_tag",
        )
    return f"{registry}/{name}:{tag}"


def _digest(name: str, registry: str) -> str:
    path = Path(os.environ.get(LOCK_VARIABLE) or "images.lock.json")
    try:
        lock = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(
            f"RELEASE=1 needs the image digests of {path}, which `make push` writes; it cannot be read",
            code="images.unreadable_lock",
        ) from None
    if lock.get("registry") != registry:
        raise UserError(
            f"{path} was written for registry {lock.get('registry')!r}, not {registry!r}",
            code="images.other_registry",
        )
    digest = lock.get("digests", {}).get(name, "")
    if not (digest.startswith("sha256:") and len(digest) == 71):
        raise UserError(
            f"{path} holds no digest of image '{name}'; run `make push` again", code="images.no_digest"
        )
    return digest
