"""A training's whole state as safetensors and JSON, its checkpoints, and a clean stop on a signal.

Any nest of dictionaries, lists, tuples, numbers, texts and tensors (a module's, an optimizer's, a
scheduler's state) becomes ``<name>.safetensors`` and ``<name>.json``; nothing is pickled, so nothing that is
loaded can run code. Every trainer saves and resumes through this module.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from latentrec.core import Interrupted
from latentrec.storage.checkpoints import CheckpointInfo, CheckpointStore, StaleAttempt
from latentrec.training.common.world import is_first_process

_TENSOR = "$tensor"
_TUPLE = "$tuple"
_DICT = "$dict"


def save_state(directory: Path, name: str, state: Any) -> None:
    """Write a nested state as ``<name>.json`` and ``<name>.safetensors`` (values exact, dtypes kept).

    Raises:
        TypeError: a value is neither JSON nor a tensor.
    """
    tensors: dict[str, torch.Tensor] = {}
    body = _encode(state, tensors)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.json").write_text(json.dumps(body), encoding="utf-8")
    save_file(tensors, directory / f"{name}.safetensors")


def load_state(directory: Path, name: str) -> Any:
    """Read back what :func:`save_state` wrote; tensors are on the CPU."""
    tensors = load_file(directory / f"{name}.safetensors")
    return _decode(json.loads((directory / f"{name}.json").read_text(encoding="utf-8")), tensors)


def rng_state() -> dict[str, Any]:
    """State of every generator a trainer may draw from: Python, NumPy, torch on CPU and on each GPU."""
    version, internal, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()  # type: ignore[misc]
    return {
        "python": [version, list(internal), gauss],
        "numpy": [
            str(kind),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            position,
            has_gauss,
            cached,
        ],
        "torch": torch.random.get_rng_state(),
        "cuda": torch.cuda.random.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_rng_state(state: dict[str, Any]) -> None:
    """Set every generator to a state of :func:`rng_state`; GPUs that are no longer there are passed over."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.random.set_rng_state(state["torch"])
    for device, value in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.random.set_rng_state(value, device)


class Checkpoints:
    """The checkpoints of one training, local to the process that writes them.

    Args:
        root: ``--checkpoint-root``; ``None`` keeps them in a temporary directory for as long as this object
            lives, so that the best can be restored but a restart begins anew.
        step, config, dataset, parent: the work, as :meth:`CheckpointStore.for_work` takes it.

    Attributes:
        main: whether this process writes (rank 0).
        kept: whether a restart finds them.

    As a context they are removed at the end of a body that has succeeded: the output is complete then.
    """

    def __init__(self, root: str | None, *, step: str, config: Any, dataset: str, parent: str | None):
        """Open the store, and become its writer on the first process."""
        self._temporary = Path(tempfile.mkdtemp(prefix=f"latentrec-{step}-"))
        self.main = is_first_process()
        self.kept = root is not None
        self._store = CheckpointStore.for_work(
            str(self._temporary / "store") if root is None else root,
            step=step,
            config=config,
            dataset=dataset,
            parent=parent,
            acquire=self.main,
        )

    def __enter__(self) -> Checkpoints:
        """They are open already."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Clear after success, and close."""
        try:
            if kind is None:
                self.clear()
        finally:
            self.close()

    def save(
        self, step: int, write: Callable[[Path], None], *, metadata: dict[str, Any], best: bool = False
    ) -> None:
        """Have ``write(directory)`` write a checkpoint and publish it, whole or not at all."""
        with self._directory() as directory:
            write(directory)
            self._store.save(directory, step, metadata=metadata, best=best)

    @contextmanager
    def latest(self) -> Iterator[tuple[Path, CheckpointInfo] | None]:
        """The newest intact checkpoint as a local directory, for the length of the context."""
        with self._restored(self._store.latest()) as found:
            yield found

    @contextmanager
    def best(self) -> Iterator[tuple[Path, CheckpointInfo] | None]:
        """The best checkpoint as a local directory, for the length of the context."""
        with self._restored(self._store.best()) as found:
            yield found

    def clear(self) -> None:
        """Remove every checkpoint of this work: the step has succeeded and its output is complete.

        A newer attempt that has taken over keeps its own.
        """
        if self.main:
            with suppress(StaleAttempt):
                self._store.clear()

    def close(self) -> None:
        """Remove temporary files; what stands under ``--checkpoint-root`` stays."""
        shutil.rmtree(self._temporary, ignore_errors=True)

    @contextmanager
    def _restored(self, info: CheckpointInfo | None) -> Iterator[tuple[Path, CheckpointInfo] | None]:
        if info is None:
            yield None
            return
        with self._directory() as directory:
            self._store.restore(info, directory)
            yield directory, info

    @contextmanager
    def _directory(self) -> Iterator[Path]:
        directory = Path(tempfile.mkdtemp(dir=self._temporary))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


class Interruption:
    """Turns SIGTERM and SIGINT into a flag, so that a training can save and stop between two steps.

    A second signal of the same kind does what it would have done before. In a thread other than the main
    one nothing is installed and the flag stays down.
    """

    def __init__(self) -> None:
        """Create the flag; handlers are installed on entering the context."""
        self.requested = False
        self._name = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        """Put the handlers back that stood there before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def stop(self, step: int, *, saved: bool) -> Interrupted:
        """The exception to raise once the state is saved."""
        cure = (
            "the same command resumes from there" if saved else "give --checkpoint-root to be able to resume"
        )
        return Interrupted(f"{self._name or 'signal'} after step {step:,}; {cure}")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._name = signal.Signals(number).name
        signal.signal(number, self._before[number])


def _encode(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {_TENSOR: name}
    if isinstance(value, dict):
        return {_DICT: [[_encode(k, tensors), _encode(v, tensors)] for k, v in value.items()]}
    if isinstance(value, tuple):
        return {_TUPLE: [_encode(item, tensors) for item in value]}
    if isinstance(value, list):
        return [_encode(item, tensors) for item in value]
    if isinstance(value, np.integer | np.floating | np.bool_):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a training state holds a {type(value).__name__}, which is neither JSON nor a tensor")


def _decode(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if isinstance(value, dict):
        ((kind, content),) = value.items()
        if kind == _TENSOR:
            return tensors[content]
        if kind == _TUPLE:
            return tuple(_decode(item, tensors) for item in content)
        return {_decode(k, tensors): _decode(v, tensors) for k, v in content}
    return value
