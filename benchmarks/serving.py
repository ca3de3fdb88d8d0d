"""Serving of a LatentR³ model to 20 clients at once: our batching service against one request at a time.

Two measurements. In one process, 20 threads ask the service (concurrent requests share a batch) and, in
turns, the same recommender behind a plain lock. Over HTTP, 20 clients with connections of their own ask
`mlflow models serve`: median and 99th percentile of the latency, requests a second, errors, server memory.
The model has random weights: the time does not depend on what it learned.

    python -m benchmarks.serving --seconds 20
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.harness import record
from latentrec.catalog import Catalogue
from latentrec.decoding import load_recommender
from latentrec.evaluation.gate import GateDecision
from latentrec.models import ModelInfo
from latentrec.serving.recommendation_service import RecommendationService, ServingModel
from latentrec.serving.request_schemas import Parameters, RecommendationRow
from latentrec.storage import ArtifactWriter

CLIENTS = 20
N_TITLES = 300


@dataclass
class Load:
    """What the clients saw.

    Attributes:
        milliseconds: latency of each request.
        errors: status and text of each answer that was no 200, or the connection's error.
        seconds: wall time.
        memory_mb: resident memory of the server's processes, sampled once a second, with its time.
    """

    milliseconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0
    memory_mb: list[tuple[float, float]] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Requests a second."""
        return len(self.milliseconds) / self.seconds

    def percentile(self, q: float) -> float:
        """Latency in milliseconds that ``q`` per cent of the requests did not exceed."""
        return float(np.percentile(self.milliseconds, q))


def drive(port: int, histories: list[list[str]], seconds: float, pid: int, clients: int = CLIENTS) -> Load:
    """Ask a scoring server from ``clients`` threads, each over a connection of its own, without a pause."""
    load, stop = Load(), threading.Event()

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        turn = number
        while not stop.is_set():
            body = json.dumps({"inputs": [{"history": histories[turn % len(histories)]}]})
            turn += clients
            start = time.perf_counter()
            try:
                connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                text = response.read()
                if response.status != 200:
                    load.errors.append(f"{response.status}: {text[:200]!r}")
            except OSError as error:
                load.errors.append(repr(error))
                connection.close()
            load.milliseconds.append(1e3 * (time.perf_counter() - start))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    while (passed := time.perf_counter() - begin) < seconds:
        load.memory_mb.append((passed, memory_of(pid)))
        time.sleep(min(1.0, seconds - passed))
    stop.set()
    for thread in threads:
        thread.join()
    load.seconds = time.perf_counter() - begin
    return load


def memory_of(pid: int) -> float:
    """Resident megabytes of a process and its children."""
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for member in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += member.memory_info().rss
    return total / 1e6


@contextlib.contextmanager
def scoring_server(uri: str, tracking_uri: str, folder: Path, workers: int = 1) -> Iterator[tuple[int, int]]:
    """Run `mlflow models serve` on a registered model, ``workers`` processes behind one port.

    Yields:
        Its port and process id.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri, "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking_uri, "PATH": path}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_until_up(port, process, folder / "server.log")
        yield port, process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def wait_until_up(port: int, process: subprocess.Popen, log: Path, seconds: float = 180) -> None:
    """Return when the server answers.

    Raises:
        RuntimeError: it ended, or does not answer in time; with its log.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.suppress(OSError):
            connection.request("GET", "/ping")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.5)
    raise RuntimeError(f"the scoring server did not start:\n{log.read_text()}")


def make_model(output: Path, preset: str = "small", n_titles: int = N_TITLES) -> tuple[Path, Catalogue]:
    """A LatentR³ model directory with random weights over an invented catalogue."""
    import torch

    from latentrec.models.latentr3 import LatentR3Model, load_backbone
    from latentrec.prompts import NextItemPrompt

    torch.manual_seed(0)
    words = np.random.default_rng(0).permutation(n_titles)
    titles = [f"Series {word % 17} volume {word}: the collected edition" for word in words]
    keys = [f"B{item:06d}" for item in range(n_titles)]
    catalogue = Catalogue.from_items(keys, titles, np.arange(n_titles, 0, -1))
    backbone, tokenizer = load_backbone(preset, texts=titles, seed=0)
    model, prompt = LatentR3Model(backbone), NextItemPrompt(tokenizer)
    write_untrained(output, model, tokenizer, prompt, catalogue)
    return output, catalogue


def write_untrained(output: Path, model: Any, tokenizer: Any, prompt: Any, catalogue: Catalogue) -> None:
    """The model directory of a LatentR³ model that nothing has trained, over a catalogue."""
    from latentrec.models.latentr3 import architecture, save_latentr3

    with ArtifactWriter(output, "model", {}) as writer:
        save_latentr3(model, tokenizer, writer.path)
        catalogue.write(writer.path / "items.parquet")
        shape = architecture(model, prompt)
        ModelInfo("latentr3", "sft", {}, shape, {}, "none", None, 0, ["random weights"]).write(writer.path)


def some_histories(catalogue: Catalogue) -> list[list[str]]:
    """Item keys of 500 users with 1 to 10 items each, seeded."""
    rng = np.random.default_rng(1)
    return [
        [catalogue.item_keys[item] for item in rng.choice(catalogue.n_items, size=rng.integers(1, 11))]
        for _ in range(500)
    ]


def register(model_dir: Path, root: Path) -> str:
    """Register a model directory in a registry of its own; returns the tracking URI."""
    from latentrec.registry.registration import register_model

    tracking_uri = f"sqlite:///{root / 'mlflow.db'}"
    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri
    fingerprint = json.loads((model_dir / "manifest.json").read_text())["fingerprint"]
    gate = GateDecision(True, "passed", "promoted: benchmark", "ndcg_at_10", challenger=1.0)
    inputs = {f"model:{gate.challenger_name}": fingerprint}
    with ArtifactWriter(root / "evaluation", "evaluation", {}, inputs) as writer:
        gate.write(writer.path / "gate.json")
    register_model(model_dir=model_dir, evaluation_dir=root / "evaluation", name="bench")
    return tracking_uri


def requests_per_second(
    ask: Callable[[RecommendationRow], Any], rows: list[RecommendationRow], seconds: float
) -> float:
    """Throughput of ``ask`` under :data:`CLIENTS` threads."""
    done, stop = [0] * CLIENTS, threading.Event()

    def client(number: int) -> None:
        turn = number
        while not stop.is_set():
            ask(rows[turn % len(rows)])
            turn += CLIENTS
            done[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - begin)


def run(seconds: float = 20, repeats: int = 3) -> None:
    """Measure and record ``serving_throughput``."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        model_dir, catalogue = make_model(root / "model")
        histories = some_histories(catalogue)
        rows = [RecommendationRow(history) for history in histories]
        service = RecommendationService(ServingModel.load(model_dir, model_dir / "items.parquet"))
        recommender, lock = load_recommender(model_dir, catalogue), threading.Lock()
        index = {key: item for item, key in enumerate(catalogue.item_keys)}

        def one_at_a_time(row: RecommendationRow) -> None:
            history = [index[key] for key in row.history]
            with lock:
                recommender.rank([history], 10, exclude=[history])

        sides: dict[str, Callable[[RecommendationRow], Any]] = {
            "ours": lambda row: service.recommend([row], Parameters()),
            "reference": one_at_a_time,
        }
        measured: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(repeats):
            for side, ask in sides.items():
                measured[side].append(requests_per_second(ask, rows, seconds))
        tracking_uri = register(model_dir, root)
        with scoring_server("models:/bench@champion", tracking_uri, root) as (port, pid):
            drive(port, histories, 3, pid)
            load = drive(port, histories, 2 * seconds, pid)
        record(
            "serving_throughput",
            float(np.median(measured["ours"])),
            float(np.median(measured["reference"])),
            "requests/s",
            repeats,
            {"clients": CLIENTS, "titles": N_TITLES, "preset": "small", "k": 10, "beams": 10},
            lower_is_better=False,
            reference_is="the same recommender behind a lock, one request at a time",
            http={
                "requests_per_second": round(load.per_second, 1),
                "latency_ms_p50": round(load.percentile(50), 1),
                "latency_ms_p99": round(load.percentile(99), 1),
                "errors": len(load.errors),
                "server_memory_mb": round(load.memory_mb[-1][1]),
            },
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="of each side and repeat")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    run(arguments.seconds, arguments.repeats)
