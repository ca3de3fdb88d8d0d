"""The environment that rehearses the lent GPU machine: where its Python comes from, how its wheels travel."""

import gzip
import json
import os
import re
import subprocess
import sys
import zipfile

import pytest

from benchmarks.gpu import environment
from benchmarks.gpu.__main__ import use_wheels


def program(folder, name, text):
    """A program of this name that answers with ``text``."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A PATH with nothing on it but what the test puts there."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}")
    monkeypatch.delenv("GPU_PYTHON", raising=False)
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def test_a_shim_without_its_python_is_passed_over(alone, tmp_path):
    program(alone, f"python{environment.PYTHON}", "exit 127")
    right = program(tmp_path / "uv-python", "python", f"echo {environment.PYTHON}")
    program(alone, "uv", f"echo {right}")
    assert environment.interpreter(tmp_path / "unpacked") == str(right)


def test_without_any_the_cure_is_said(alone, tmp_path):
    with pytest.raises(SystemExit, match="GPU_PYTHON"):
        environment.interpreter(tmp_path / "unpacked")


def test_the_go_modules_files_become_an_interpreter(alone, tmp_path):
    name = f"bin/python{environment.PYTHON}"
    data = tmp_path / "module" / "python" / "internal" / "data" / "linux-amd64"
    (data / "bin").mkdir(parents=True)
    (data / f"{name}.gz").write_bytes(gzip.compress(f"#!/bin/sh\necho {environment.PYTHON}\n".encode()))
    (data / "lib.txt").write_text("as it is", encoding="utf-8")
    files = [
        {"name": "bin", "perm": 0o755},
        {"name": name, "perm": 0o755, "compressed": True},
        {"name": "bin/python3", "symlink": f"python{environment.PYTHON}"},
        {"name": "lib.txt", "perm": 0o644},
    ]
    (data / "files.json").write_text(json.dumps({"files": files}), encoding="utf-8")
    answer = json.dumps({"Dir": str(tmp_path / "module")})
    program(alone, "go", f"echo '{answer}'")
    found = environment.interpreter(tmp_path / "unpacked")
    assert subprocess.check_output([found], text=True).strip() == environment.PYTHON
    assert os.readlink(tmp_path / "unpacked" / "bin" / "python3") == f"python{environment.PYTHON}"
    assert (tmp_path / "unpacked" / "lib.txt").read_text(encoding="utf-8") == "as it is"


def test_carried_wheels_are_importable_here_and_in_children(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with zipfile.ZipFile(tmp_path / "carried-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried_by_test.py", "VALUE = 7\n")
    use_wheels(tmp_path, tmp_path / "site")
    import carried_by_test

    assert carried_by_test.VALUE == 7
    child = [sys.executable, "-c", "import carried_by_test; print(carried_by_test.VALUE)"]
    assert subprocess.check_output(child, text=True).strip() == "7"


def test_what_travels_is_what_the_machine_lacks():
    names = [
        set(re.findall(r"^([a-z0-9-]+)==", (environment.REQUIREMENTS / f"{name}.txt").read_text(), re.M))
        for name in ("gpu", "gpu-carried")
    ]
    assert not names[0] & names[1]
    assert {"pydantic", "trl", "datasets", "gguf"} <= names[1]
    assert not {"trl", "kfp", "mlflow", "mlflow-skinny", "torch"} & names[0]
