"""``python -m benchmarks.gpu``: measure everything on the GPU of this machine, table last.

    python -m benchmarks.gpu --output runs/gpu                 all parts but f
    python -m benchmarks.gpu --parts f --cells cells.txt …     result cells (see benchmarks/gpu/cells.py)
    python -m benchmarks.gpu --dry-run                         every part at toy size on the CPU
    python -m benchmarks.gpu --wheels DIR …                    with packages that travelled as wheels

A part that fails leaves a row with its error, and the others go on.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
import traceback
import zipfile
from pathlib import Path

import torch

from benchmarks.gpu.context import Context, as_table

PARTS = {
    "ceilings": "ceilings",
    "a": "equivalence",
    "b": "training",
    "c": "decoding",
    "d": "resume",
    "e": "lares",
    "k": "compiled",
    "p": "packing",
    "g": "grid",
    "f": "cells",
}


def main() -> int:
    """Run the parts asked for; the exit code is the number of parts that failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="toy sizes, on the CPU")
    parser.add_argument(
        "--parts", default="", help="letters of the parts, comma-separated (default: all but f, g)"
    )
    parser.add_argument("--output", type=Path, default=Path(os.environ.get("OUT", "runs/gpu")))
    parser.add_argument("--seconds", type=float, default=540, help="begin no measurement after so long")
    parser.add_argument("--datasets", type=Path, help="folder of prepared dataset directories")
    parser.add_argument("--model", help="backbone with real weights: smollm2-135m, a directory, a .gguf file")
    parser.add_argument("--cells", type=Path, help="list of result cells (part f)")
    parser.add_argument("--work", type=Path, default=Path("runs/gpu-work"), help="models of part f")
    parser.add_argument("--wheels", type=Path, help="folder of carried wheels (benchmarks.gpu.environment)")
    given = parser.parse_args()
    if given.wheels:
        use_wheels(given.wheels, given.work / "site")
    if not given.dry_run and not torch.cuda.is_available():
        print("no CUDA device here; --dry-run runs every part at toy size on the CPU", file=sys.stderr)
        return 2
    given.output.mkdir(parents=True, exist_ok=True)
    if given.dry_run:
        os.environ["LATENTREC_GPU_TESTS"] = "cpu"
    context = Context(
        device="cpu" if given.dry_run else "cuda",
        toy=given.dry_run,
        output=given.output,
        deadline=time.monotonic() + given.seconds,
        datasets=given.datasets,
        model=given.model,
        cells=given.cells,
        work=given.work,
    )
    chosen = (
        given.parts.split(",")
        if given.parts
        else [name for name in PARTS if name not in ("f", "g") or (name == "f" and given.cells)]
    )
    failed = 0
    for part in chosen:
        begin = time.monotonic()
        try:
            importlib.import_module(f"benchmarks.gpu.{PARTS[part]}").run(context)
        except Exception as error:
            failed += 1
            traceback.print_exc()
            context.record("errors", part, error=f"{type(error).__name__}: {str(error)[:300]}")
        print(f"== part {part}: {time.monotonic() - begin:.1f} s", flush=True)
        context.clear()
    (given.output / "table.md").write_text(as_table(context.rows) + "\n", encoding="utf-8")
    print(as_table(context.rows))
    return failed


def use_wheels(wheels: Path, site: Path) -> None:
    """Unpack carried wheels into ``site``, before everything else on the path, for child processes too."""
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    sys.path.insert(0, str(site.resolve()))
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(site.resolve()), os.environ.get("PYTHONPATH")])
    )


if __name__ == "__main__":
    sys.exit(main())
