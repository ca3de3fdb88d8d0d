"""Takes CUDA out of a torch that was built with it, for images that run on CPUs.

usage: python without_cuda.py SITE_PACKAGES

Most package indexes offer Linux one torch, with CUDA, 4 GB with the libraries that it requires. The loader
refuses torch without them although nothing calls them where no device is. So each library that torch's own
name as needed is replaced by a stub of a few KB with the same functions, each of which returns 1: an
error in every one of these interfaces. The CUDA runtime itself (under 1 MB) stays, for it is the one that
is called, and says that no device is there; the images also set ``CUDA_VISIBLE_DEVICES=-1``, so that it
says so on a node with GPUs too. All else of these packages goes, and their metadata, so that ``pip list``
tells what is there. A torch without CUDA is left alone.
"""

import shutil
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

from shared_library import Demands, demands_of, write_stub_library

CUDA_PACKAGES = ("nvidia-", "cuda-", "triton")
KEPT = "libcudart.so"
# Headers and a compiler's parts for extensions, which nothing here builds; solvers, loaded for a device only.
UNUSED_OF_TORCH = ("torch/include", "torch/bin/protoc*", "torch/lib/libtorch_cuda_linalg.so")


def cuda_distributions(packages: Path) -> list[Distribution]:
    """The installed packages that exist for CUDA only."""
    return [
        found
        for found in distributions(path=[str(packages)])
        if found.metadata["Name"].lower().startswith(CUDA_PACKAGES)
    ]


def files_of(packages: Path, distribution: Distribution) -> list[Path]:
    """Every file of a package that is there, its metadata among them.

    Raises:
        ValueError: the package has no list of its files, or one outside the folder of packages.
    """
    if distribution.files is None:
        raise ValueError(f"{distribution.metadata['Name']} has no RECORD of its files")
    found = []
    for entry in distribution.files:
        path = Path(packages, entry).resolve()
        if not path.is_relative_to(packages.parents[2].resolve()):
            raise ValueError(f"{distribution.metadata['Name']} names {entry}, outside {packages.parents[2]}")
        if path.is_file():
            found.append(path)
    return found


def combined(demands: list[Demands], library: str, defined: set[str]) -> dict[str, set[str]]:
    """By version, the functions of a library that any of its users asks for.

    Args:
        demands: of the users.
        library: its name.
        defined: the symbols that it defines; those that are asked for without a version are among them.
            CUDA's interfaces are C; the symbols of C++ (``_Z…``) are copies of the C++ library's own, which
            must not be hidden.
    """
    asked = {name for one in demands for name in one.unversioned if not name.startswith("_Z")}
    symbols = {"": defined & asked}
    for one in demands:
        for version in one.versions.get(library, set()):
            symbols.setdefault(version, set()).update(one.symbols.get(library, {}).get(version, set()))
    return symbols


def take_out(packages: Path) -> tuple[int, int]:
    """Replace what torch needs of CUDA, remove the rest.

    Args:
        packages: the folder of installed packages.

    Returns:
        Bytes of CUDA's packages and of torch's unused files before, and bytes of what stands in their place.
    """
    cuda = cuda_distributions(packages)
    files = [path for found in cuda for path in files_of(packages, found)]
    if not files:
        return 0, 0
    unused = [path for pattern in UNUSED_OF_TORCH for path in packages.glob(pattern)]
    unused_files = [
        path for top in unused for path in (top.rglob("*") if top.is_dir() else [top]) if path.is_file()
    ]
    before = sum(path.stat().st_size for path in {*files, *unused_files})
    for path in unused:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    demands = [demands_of(path) for path in sorted(packages.glob("torch/lib/*.so*"))]
    needed = {library for one in demands for library in one.libraries}
    after = 0
    folders = set()
    for path in files:
        folders.add(path.parent)
        if path.name not in needed:
            path.unlink()
            continue
        if not path.name.startswith(KEPT):
            real = demands_of(path)
            path.unlink()  # first, so that a file that is shared with a cache is not written through
            write_stub_library(path, path.name, combined(demands, path.name, real.defined), real.machine)
        after += path.stat().st_size
    for folder in sorted(folders, key=lambda folder: len(folder.parts), reverse=True):
        remove_if_empty(folder, packages)
    return before, after


def remove_if_empty(folder: Path, top: Path) -> None:
    """Remove a folder that has nothing but compiled modules left, and those above it likewise."""
    while folder.is_relative_to(top) and folder != top and folder.is_dir():
        if any(path.name != "__pycache__" for path in folder.iterdir()):
            return
        shutil.rmtree(folder)
        folder = folder.parent


if __name__ == "__main__":
    was, now = take_out(Path(sys.argv[1]))
    print(f"CUDA: {was / 1e6:.0f} MB taken out, {now / 1e6:.1f} MB in their place")
