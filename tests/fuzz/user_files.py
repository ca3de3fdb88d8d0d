"""Campaign over the smaller files that people give to commands: users, traces, settings, catalogues…

Bytes are changed as files suffer them, and values inside the documents as people and attackers write them.
"""

from __future__ import annotations

# ruff: noqa: E501
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from latentrec.core import UserError
from latentrec.storage import StorageError
from tests.fuzz.refusals import require_one_line

HOSTILE: list[Any] = [
    -1, 0, 2**31, 2**63, 10**400, float("nan"), float("inf"), -0.0, 1e308, "", " ", "x" * 5000, "a\0b", "\ud83c", "\u2028",
    "\x85", "../x", "/etc/passwd", "\x1b[2J", True, None, [], {}, [[]], [None], {"a": 1}, [1, "x"], "1e400", "NaN", "\u202e",
]  # fmt: skip
DEEP = b"[" * 100_000
_ANSWER = (
    "<analyze user>likes guitars</analyze user><analyze item>a guitar</analyze item>"
    "<match>fits</match><rate>4.0</rate>"
)
_ITEMS = [
    {"item_key": f"B{number}", "title": f"Title {number}", "train_count": number, "description": "fine",
     "train_mean_rating": 4.0}
    for number in range(4)
]  # fmt: skip
GOOD: dict[str, list[Any]] = {
    "users": [{"user_key": f"U{number}", "history": ["I1", "I2"]} for number in range(4)],
    "users table": [{"user_key": f"U{number}", "history": ["I1", "I2"]} for number in range(4)],
    "traces": [{"prompt": "how", "completion": _ANSWER, "rating": 4.0, "row": 3}] * 2,
    "journal": [{"key": f"k{number}", "text": _ANSWER} for number in range(3)],
    "previous": [{"kind": "dataset", "fingerprint": "f" * 64, "counts": {"interactions": 120}}],
    "backbone": [
        {"model_type": "qwen2", "hidden_size": 64, "vocab_size": 1000, "num_hidden_layers": 2, "intermediate_size": 128,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": True}
    ],
    "model": [
        {"system": "sasrec", "stage": "sequential", "config": {}, "architecture": {"hidden_size": 8}, "metrics": {"x": 1.0},
         "dataset_fingerprint": "f" * 64, "parent": None, "train_end": 1, "notes": ["placeholder"]}
    ],
    "settings": [{"sft": {"seed": 1, "learning_rate": 0.1}, "data_prep.k_core": 3}],
    "catalogue table": _ITEMS,
    "rated table": _ITEMS,
}  # fmt: skip
"""A sound document, or rows, of each kind."""


def altered(document: Any, draw: random.Random) -> Any:
    """The document with one value, anywhere in it, replaced, taken out or put in twice."""
    if isinstance(document, dict) and document and draw.random() < 0.9:
        name = draw.choice(sorted(document))
        if draw.random() < 0.15:
            return {key: value for key, value in document.items() if key != name}
        return {**document, name: altered(document[name], draw)}
    if isinstance(document, list) and document and draw.random() < 0.8:
        place = draw.randrange(len(document))
        return [*document[:place], altered(document[place], draw), *document[place + draw.randrange(2) :]]
    return draw.choice(HOSTILE)


def text_of(documents: list[Any], draw: random.Random, mutated: Callable[..., bytes]) -> bytes:
    """JSON lines of documents of which some were altered, and bytes of them changed."""
    rows = [altered(row, draw) if draw.random() < 0.4 else row for row in documents]
    escaped = draw.random() < 0.5
    text = "\n".join(json.dumps(row, ensure_ascii=escaped) for row in rows)
    data = text.encode("utf-8", "surrogatepass")
    if draw.random() < 0.02:
        return data + b"\n" + DEEP
    return mutated(data, draw) if draw.random() < 0.5 else data


def table_of(rows: list[dict[str, Any]], draw: random.Random, mutated: Callable[..., bytes]) -> bytes:
    """The same as Parquet; columns change their type where a value does."""
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in rows[0]}
    name = draw.choice(sorted(columns))
    match draw.randrange(5):
        case 0:
            del columns[name]
        case 1:
            columns[name] = [draw.choice(HOSTILE) for _ in rows]
        case 2:
            columns[name] = [None if draw.random() < 0.5 else value for value in columns[name]]
        case 3:
            columns[name] = [draw.choice(columns[name]) for _ in rows]
        case _:
            pass
    try:
        table = pa.table(columns)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
        table = pa.table({key: [str(value).encode("ascii", "replace") for value in values] for key, values in columns.items()})  # fmt: skip
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    data = sink.getvalue().to_pybytes()
    return mutated(data, draw) if draw.random() < 0.5 else data


def user_files(count: int, draw: random.Random, folder: Path, mutated: Callable[..., bytes]) -> Iterator[str]:
    """Each kind of file through what reads it; a refusal is a :class:`UserError` in one line."""
    from latentrec.catalog import Catalogue
    from latentrec.core.config_values import read_settings
    from latentrec.data.baseline_dataset import read_previous, volume_check
    from latentrec.evaluation.gate_decision import BaselineComparison, GateDecision
    from latentrec.models.model_directory import MODEL_JSON, read_model
    from latentrec.prompts.rating_format import RatingScale
    from latentrec.serving.rating_service import read_items
    from latentrec.steps.backbone_check import parameter_count, read_model_config, training_gb
    from latentrec.steps.batch_scoring import _batches, _checked
    from latentrec.steps.score_shards import SCHEMA
    from latentrec.steps.status import StepStatus, read_step_statuses
    from latentrec.steps.users_to_score import read_users
    from latentrec.storage import ArtifactWriter
    from latentrec.training.rating.trace_records import Journal, Trace, read_traces

    def check_users() -> None:
        for keys, histories in _batches(read_users(str(folder / "users"), folder / "t"), 3):
            _checked("users", 0, histories)
            pa.array(keys, SCHEMA.field("user_key").type)

    def previous() -> None:
        volume_check(read_previous(str(folder / "previous.json")), 100, 0.3)

    def backbone() -> None:
        training_gb(parameter_count(read_model_config(str(folder / "backbone"))), lora=False)

    def gate() -> None:
        GateDecision.read(folder / "gate.json")

    def traces() -> None:
        for trace in read_traces(str(folder / "traces"), RatingScale(1, 5)):
            assert isinstance(trace, Trace)
            assert np.isfinite(trace.rating)
            (trace.prompt + trace.completion).encode()

    def journal() -> None:
        Journal(str(folder / "answers")).close(remove=False)

    with ArtifactWriter(folder / "model", "model", {}, {}) as writer:
        (writer.path / MODEL_JSON).write_text("{}")
    readers: dict[str, tuple[str, Callable[[], Any]]] = {
        "users": ("users", check_users),
        "users table": ("users", check_users),
        "traces": ("traces", traces),
        "journal": ("answers.journal", journal),
        "previous": ("previous.json", previous),
        "backbone": ("backbone/config.json", backbone),
        "model": (f"model/{MODEL_JSON}", lambda: read_model(folder / "model", verify=False)),
        "gate": ("gate.json", gate),
        "settings": ("settings.yaml", lambda: read_settings(folder / "settings.yaml")),
        "catalogue table": ("items.parquet", lambda: Catalogue.read(folder / "items.parquet")),
        "rated table": ("rated.parquet", lambda: read_items(folder / "rated.parquet")),
        "status": ("status/run/sft.json", lambda: read_step_statuses(str(folder / "status"), "run")),
    }
    compared = BaselineComparison("sasrec", 0.1, 0.05, 0.01, 0.1, "below")
    decision = GateDecision(True, "passed", "better", "ndcg_at_10", 0.15, baselines=(compared,))
    good = GOOD | {"gate": [asdict(decision)], "status": [asdict(StepStatus("sft", "succeeded", 1.0, 2.0))]}
    for name in ("t", "backbone", "status/run"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for kind, (name, read) in readers.items():  # each is read as it stands: what is refused below was good
        data = table_of if kind.endswith("table") else text_of
        (folder / name).write_bytes(data(good[kind], Still(), mutated))  # type: ignore[operator]
        read()
    for _ in range(count):
        kind = draw.choice(sorted(readers))
        name, read = readers[kind]
        make = table_of if kind.endswith("table") else text_of
        (folder / name).write_bytes(make(good[kind], draw, mutated))  # type: ignore[operator]
        try:
            read()
            yield "used"
        except (UserError, StorageError) as error:
            require_one_line(error)
            yield "refused"


class Still(random.Random):
    """Draws that change nothing."""

    def random(self) -> float:
        """The highest there is."""
        return 0.999

    def randrange(self, start: int, *_: Any) -> int:  # type: ignore[override]
        """The highest there is."""
        return start - 1

    def choice(self, values: Any) -> Any:
        """The first."""
        return values[0]
