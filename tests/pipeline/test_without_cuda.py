"""CUDA taken out of a torch that was built with it: the stub libraries, and torch itself on top of them."""

import ctypes
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docker"))
import shared_library  # noqa: E402
import without_cuda  # noqa: E402

PACKAGES = Path(torch.__file__).parents[1]
MACHINE = {"x86_64": 62, "aarch64": 183}.get(platform.machine(), 0)


def test_what_a_library_asks_of_others_is_read():
    demands = shared_library.demands_of(PACKAGES / "torch/lib/libc10.so")
    assert {"libc.so.6", "libstdc++.so.6"} <= set(demands.libraries)
    assert demands.machine == MACHINE
    assert any("memcpy" in symbols for symbols in demands.symbols["libc.so.6"].values())
    assert all(version.startswith(("GLIBCXX", "CXXABI")) for version in demands.versions["libstdc++.so.6"])
    assert any("c10" in name for name in demands.defined)


def test_a_stand_in_is_a_library_to_the_loader(tmp_path):
    """Functions with and without versions return 1; two versions of one library stand side by side."""
    path = tmp_path / "libnone.so.7"
    symbols = {"": {"plain"}, "NONE_1": {"first", "second"}, "NONE_2": {"third"}, "NONE_3": set()}
    shared_library.write_stub_library(path, "libnone.so.7", symbols, MACHINE)
    library = ctypes.CDLL(str(path), mode=os.RTLD_NOW)
    assert [library[name]() for name in ("plain", "first", "second", "third")] == [1, 1, 1, 1]
    with pytest.raises(AttributeError):
        library["fourth"]
    versioned = ctypes.CDLL(None).dlvsym
    versioned.restype, versioned.argtypes = (
        ctypes.c_void_p,
        (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p),
    )
    assert versioned(library._handle, b"third", b"NONE_2")
    assert not versioned(library._handle, b"third", b"NONE_1")


def test_a_file_that_is_no_library_is_refused(tmp_path):
    path = tmp_path / "libtext.so"
    path.write_text("INPUT(libother.so)\n")
    with pytest.raises(ValueError, match=r"libtext\.so is not an ELF file"):
        shared_library.demands_of(path)


def test_a_torch_without_cuda_is_left_alone(tmp_path):
    packages = tmp_path / "lib/python3/site-packages"
    (packages / "torch/include").mkdir(parents=True)
    (packages / "torch/include/a.h").write_text("")
    assert without_cuda.take_out(packages) == (0, 0)
    assert (packages / "torch/include/a.h").exists()


@pytest.fixture(scope="module")
def linked_packages():
    """Torch and CUDA's packages as hard links, with metadata; beside them where /tmp is elsewhere."""
    cuda = without_cuda.cuda_distributions(PACKAGES)
    if not cuda:
        pytest.skip("this torch was built without CUDA")
    beside = PACKAGES.parents[2]
    here = Path(tempfile.gettempdir())
    top = Path(tempfile.mkdtemp(dir=here if here.stat().st_dev == beside.stat().st_dev else beside))
    packages = top / "lib/python3/site-packages"
    packages.mkdir(parents=True)
    torch_s = next(
        found for found in distributions(path=[str(PACKAGES)]) if found.metadata["Name"] == "torch"
    )
    names = {str(entry).split("/")[0] for found in (*cuda, torch_s) for entry in found.files or ()}
    try:
        for name in sorted(names - {".."}):
            source = PACKAGES / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, packages / name, copy_function=os.link, ignore=ignored)
        yield packages
    finally:
        shutil.rmtree(top)


def test_torch_computes_on_stub_libraries(linked_packages):
    """Hundreds of times smaller, no package of CUDA is listed, and forward and backward run."""
    real = PACKAGES / "nvidia"
    before = sum(path.stat().st_size for path in real.rglob("*") if path.is_file())
    was, now = without_cuda.take_out(linked_packages)
    assert now < 4e6 < 1e9 < was
    assert sum(path.stat().st_size for path in real.rglob("*") if path.is_file()) == before
    assert without_cuda.cuda_distributions(linked_packages) == []
    assert not (linked_packages / "triton").exists()
    code = (
        "import sys\n"
        "sys.modules['triton'] = None\n"
        "import torch\n"
        "x = torch.ones(2, 2, requires_grad=True)\n"
        "(x @ x).sum().backward()\n"
        "print(x.grad.tolist(), torch.cuda.is_available(), torch.cuda.device_count())\n"
        "print(*{line.split()[-1] for line in open('/proc/self/maps') if '/nvidia/' in line}, sep='\\n')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(linked_packages)],
        env={**os.environ, "PYTHONPATH": str(linked_packages), "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told, *mapped = done.stdout.splitlines()
    assert told == "[[4.0, 4.0], [4.0, 4.0]] False 0"
    # Torch looks for these two along sys.path, where this test's interpreter has them; images have neither.
    elsewhere = [path for path in mapped if not path.startswith(str(linked_packages))]
    assert len(mapped) > 10
    assert {Path(path).name.split(".so")[0] for path in elsewhere} <= {"libnvJitLink", "libnvrtc-builtins"}
