"""``python -m benchmarks.gpu.environment FOLDER``: an environment like the lent GPU machine's, to rehearse.

There: Python 3.12, torch 2.11, transformers 5.17, no ``.venv``, no network. An import that fails costs a
minute of the fifteen, so ``make gpu-dry-run`` runs in the same versions: what stands there
(``requirements/gpu.txt``), what travels as wheels (``requirements/gpu-carried.txt``), and nothing else.

``--wheels`` only fetches the wheels that travel, into FOLDER (named in the device tool's ``carry``);
``python -m benchmarks.gpu --wheels FOLDER`` puts them on the path there.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

logger = logging.getLogger(__name__)

PYTHON = "3.12"
TORCH = "2.11.0"
REQUIREMENTS = Path(__file__).resolve().parents[2] / "docker" / "requirements"
MODULE = "github.com/kluctl/go-embed-python@v0.0.0-3.12.3-20240415-1"
"""A Go module that holds CPython 3.12 as files: for machines whose packages have no such Python."""


def main() -> int:
    """Make the environment, or fetch the wheels that travel."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.environment", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="where to make the environment")
    parser.add_argument(
        "--wheels", action="store_true", help="only fetch the wheels that travel, into FOLDER"
    )
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if given.wheels:
        fetch_wheels(given.folder)
    else:
        make(given.folder)
    return 0


def make(folder: Path) -> Path:
    """A virtual environment in ``folder``; returns its interpreter."""
    shutil.rmtree(folder, ignore_errors=True)
    base = interpreter(folder.parent / f"python{PYTHON}")
    subprocess.run([base, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "-q",
        "--disable-pip-version-check",
    ]
    for name in ("gpu", "gpu-carried"):
        subprocess.run(
            [*install, "--no-deps", "--require-hashes", "-r", REQUIREMENTS / f"{name}.txt"], check=True
        )
    subprocess.run([*install, f"torch=={TORCH}"], check=True)
    logger.info("%s: Python %s, torch %s", folder, PYTHON, TORCH)
    return python


def fetch_wheels(folder: Path) -> None:
    """The wheels of ``gpu-carried.txt`` for the lent machine's Python, checked by their hashes."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    options = [
        "--require-hashes",
        "--only-binary",
        ":all:",
        "--python-version",
        PYTHON,
        "--dest",
        str(folder),
    ]
    subprocess.run([*command, *options, "-r", REQUIREMENTS / "gpu-carried.txt"], check=True)
    size = sum(wheel.stat().st_size for wheel in folder.glob("*.whl"))
    logger.info("%s: %d wheels, %.1f MB", folder, len(list(folder.glob("*.whl"))), size / 1e6)


def interpreter(unpacked: Path) -> str:
    """A Python 3.12: ``GPU_PYTHON``, the one on the PATH, uv's, or one out of a Go module into ``unpacked``.

    Raises:
        SystemExit: none of them is there.
    """
    for path in (os.environ.get("GPU_PYTHON"), shutil.which(f"python{PYTHON}"), of_uv()):
        if path and answer_of(path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])") == PYTHON:
            return path
    found = from_go_module(unpacked) if shutil.which("go") else ""
    if not found:
        raise SystemExit(f"no Python {PYTHON} here: install it and set GPU_PYTHON, or install uv or Go")
    return found


def of_uv() -> str:
    """The Python 3.12 that uv manages or finds; an empty text if there is none."""
    uv = shutil.which("uv")
    return answer_of(uv, "python", "find", "--no-python-downloads", PYTHON) if uv else ""


def answer_of(*command: str) -> str:
    """What a command prints; an empty text if it fails, as a version manager's shim may."""
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def from_go_module(folder: Path) -> str:
    """CPython's files as the Go module keeps them (``files.json``: links, modes), in ``folder``.

    Returns:
        The interpreter's path; an empty text if the module cannot be had.
    """
    answer = subprocess.run(["go", "mod", "download", "-json", MODULE], capture_output=True, text=True)
    if answer.returncode != 0:
        logger.warning("%s: %s", MODULE, (answer.stdout or answer.stderr).strip()[-300:])
        return ""
    source = Path(json.loads(answer.stdout)["Dir"]) / "python" / "internal" / "data" / "linux-amd64"
    shutil.rmtree(folder, ignore_errors=True)
    for entry in json.loads((source / "files.json").read_text(encoding="utf-8"))["files"]:
        path = folder / entry["name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if entry.get("symlink"):
            path.symlink_to(entry["symlink"])
        elif (source / entry["name"]).is_dir():
            path.mkdir(exist_ok=True)
        elif entry.get("compressed"):
            path.write_bytes(gzip.decompress((source / f"{entry['name']}.gz").read_bytes()))
            path.chmod(entry["perm"] & 0o777)
        else:
            path.write_bytes((source / entry["name"]).read_bytes())
            path.chmod(entry["perm"] & 0o777)
    return str(folder / "bin" / f"python{PYTHON}")


if __name__ == "__main__":
    sys.exit(main())
