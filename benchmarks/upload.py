"""A large object up and down through the fake object store: our verified transfer against a plain copy.

The plain copy is the library's own call for one file (``upload_from_filename``, ``download_to_filename``):
what one would otherwise write. Beside it stands the floor: one bare HTTP request on the loopback device,
with no checksum, no precondition and no resume, which nobody would ship. Every transfer runs in a process of
its own, in turns, against one server process that keeps objects on disk, and begins when nothing is left to
be written from the one before it. Peak memory is that of the whole process, libraries included.

    python -m benchmarks.upload --megabytes 2048 --repeats 5
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SIDES = ("ours", "plain", "bare")
BUCKET = "bucket"


def run(megabytes: int = 2048, repeats: int = 5, folder: str | None = None) -> dict[str, dict[str, Any]]:
    """The entry ``upload_vs_plain_copy``: seconds up and down together, and each direction apart.

    Raises:
        RuntimeError: a transfer failed or brought back other bytes.
    """
    from benchmarks.harness import record

    measured = measure(megabytes, repeats, folder)
    seconds = best(measured)
    entry = record(
        "upload_vs_plain_copy",
        ours=sum(seconds["ours"].values()),
        reference=sum(seconds["plain"].values()),
        unit="s",
        repeats=repeats,
        sizes={"megabytes": megabytes},
        ratio_up=seconds["plain"]["up_s"] / seconds["ours"]["up_s"],
        ratio_down=seconds["plain"]["down_s"] / seconds["ours"]["down_s"],
        of_bare_up=seconds["bare"]["up_s"] / seconds["ours"]["up_s"],
        of_bare_down=seconds["bare"]["down_s"] / seconds["ours"]["down_s"],
        peak_mb={side: max(row["peak_mb"] for row in rows) for side, rows in measured.items()},
        rows=measured,
        reference_is="the library's upload_from_filename and download_to_filename",
        note="best of the repeats; of_bare: share of the speed of one HTTP request without checksums",
    )
    return {"upload_vs_plain_copy": entry}


def measure(
    megabytes: int, repeats: int, folder: str | None = None, sides: tuple[str, ...] = SIDES
) -> dict[str, list[dict[str, float]]]:
    """Per side, one row a repeat: ``up_s``, ``down_s``, ``peak_mb``."""
    measured: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory(dir=folder) as name, _server(Path(name) / "server") as url:
        source = Path(name) / "source.bin"
        _write_random(source, megabytes)
        for turn in range(repeats):
            for side in sides if turn % 2 == 0 else sides[::-1]:
                measured[side].append(_measure_apart(side, source, url))
                print(f"{side:8} {measured[side][-1]}", file=sys.stderr, flush=True)
    return measured


def best(measured: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Per side the fastest transfer each way: what is left to a disk's write-back differs from run to run."""
    return {
        side: {key: min(row[key] for row in rows) for key in ("up_s", "down_s")}
        for side, rows in measured.items()
    }


def _measure_apart(side: str, source: Path, url: str) -> dict[str, float]:
    environment = {**os.environ, "STORAGE_EMULATOR_HOST": url, "NO_PROXY": "127.0.0.1"}
    row: dict[str, float] = {"peak_mb": 0.0}
    copy = source.with_name("copy.bin")
    for direction in ("up", "down"):
        os.sync()  # what earlier transfers left to be written must not slow this one
        command = [sys.executable, "-m", "benchmarks.upload", "--side", side, "--direction", direction]
        done = subprocess.run(
            [*command, "--source", str(source), "--copy", str(copy)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{side} {direction} failed:\n{done.stderr}")
        answer = json.loads(done.stdout.splitlines()[-1])
        row[f"{direction}_s"] = answer["seconds"]
        row["peak_mb"] = max(row["peak_mb"], answer["peak_mb"])
    if subprocess.run(["cmp", str(source), str(copy)], check=False).returncode != 0:
        raise RuntimeError(f"{side} brought back other bytes than it took away")
    copy.unlink()
    return row


def _one_transfer(side: str, direction: str, source: Path, copy: Path) -> None:
    url = os.environ["STORAGE_EMULATOR_HOST"]
    transfer = _transfers(side, url, source, copy)[direction]
    began = time.perf_counter()
    transfer()
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak}))


def _transfers(side: str, url: str, source: Path, copy: Path) -> dict[str, Callable[[], Any]]:
    if side == "ours":
        from latentrec.storage import store_for

        uri = f"gs://{BUCKET}/ours.bin"
        store = store_for(uri)
        return {
            "up": lambda: store.upload_file(source, uri),
            "down": lambda: store.download_file(uri, copy),
        }
    if side == "plain":
        from google.cloud import storage

        blob = storage.Client(project=None).bucket(BUCKET).blob("plain.bin")
        return {
            "up": lambda: blob.upload_from_filename(str(source)),
            "down": lambda: blob.download_to_filename(str(copy)),
        }
    return {"up": lambda: _bare_up(url, source), "down": lambda: _bare_down(url, copy)}


def _bare_up(url: str, source: Path) -> None:
    import http.client

    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=600, blocksize=1 << 20)
    with source.open("rb") as stream:
        headers = {"Content-Length": str(source.stat().st_size)}
        path = f"/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name=bare.bin"
        connection.request("POST", path, body=stream, headers=headers)
        if connection.getresponse().status != 200:
            raise RuntimeError("the bare upload failed")


def _bare_down(url: str, copy: Path) -> None:
    import requests

    address = f"{url}/storage/v1/b/{BUCKET}/o/bare.bin?alt=media"
    with requests.get(address, stream=True, timeout=600) as response, copy.open("wb") as stream:
        response.raise_for_status()
        for block in response.iter_content(1 << 20):
            stream.write(block)


@contextlib.contextmanager
def _server(root: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tests.fakes.gcs_server", "--port", str(port), "--bucket", BUCKET]
    server = subprocess.Popen([*command, "--root", str(root)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        if "STORAGE_EMULATOR_HOST=" not in server.stdout.readline():
            raise RuntimeError("the object store did not start")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def _write_random(path: Path, megabytes: int) -> None:
    """Bytes that differ from block to block, so that a block in the wrong place is noticed."""
    block = os.urandom(1 << 20)
    with path.open("wb") as stream:
        for number in range(megabytes):
            stream.write(number.to_bytes(8, "big") + block[8:])


def main() -> None:
    """Measure everything, or (``--side``) make one transfer and print its time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", help="where files and objects lie (default: the temporary folder)")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--direction", choices=("up", "down"), help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--copy", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        _one_transfer(options.side, options.direction, options.source, options.copy)
    else:
        print(json.dumps(run(options.megabytes, options.repeats, options.folder), indent=2))


if __name__ == "__main__":
    main()
