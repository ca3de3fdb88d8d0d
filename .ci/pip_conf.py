"""Write this machine's pip configuration to a file that an image build can use as its secret ``pip_conf``.

usage: python3 .ci/pip_conf.py FILE

What a build inside a container needs of it: indexes and where wheels lie, from pip's files and from the
environment (which wins, as in pip). Paths of certificates stay out (the build gets its own secret for them).
Prints, one a line, the local folders that the configuration names; the build has to see them.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

KEPT = ("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "proxy")


def machine_settings() -> dict[str, str]:
    """The settings that decide where packages come from, as ``pip config list`` tells them."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"{sys.executable} has no pip to ask; the build uses pip's defaults", file=sys.stderr)
    found: dict[str, str] = {}
    for where in ("global.", "install.", ":env:."):
        for line in done.stdout.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(where) and name.removeprefix(where) in KEPT:
                found[name.removeprefix(where)] = str(ast.literal_eval(value))
    return found


def local_folders(settings: dict[str, str]) -> list[str]:
    """Existing folders of this machine among the settings' words."""
    words = " ".join(settings.get(name, "") for name in KEPT[:3]).split()
    paths = [Path(unquote(urlsplit(word).path) if word.startswith("file:") else word) for word in words]
    # The pages of an index, in "simple", point at files beside it.
    wanted = [path.parent if path.name == "simple" else path for path in paths]
    return sorted({str(path) for path in wanted if path.is_absolute() and path.is_dir()})


def main() -> None:
    """Write the file; print the folders."""
    settings = machine_settings()
    lines = ["[global]", *(f"{name} = {' '.join(value.split())}" for name, value in settings.items())]
    Path(sys.argv[1]).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(local_folders(settings)))


if __name__ == "__main__":
    main()
