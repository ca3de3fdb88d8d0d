"""Fuzz campaigns, each in a process of its own: ``python -m tests.fuzz.campaigns NAME COUNT SEED FOLDER``.

An input may be used or refused (:class:`UserError`, :class:`StorageError`, a 400); anything else is a fault
and ends the campaign with the input that caused it. The last line printed is a JSON object of figures.
"""

from __future__ import annotations

# ruff: noqa: E501
import gzip
import inspect
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st

from latentrec.core import UserError
from latentrec.core.config import fields_of
from latentrec.storage import StorageError
from tests.fuzz.refusals import require_one_line

REFUSED = (UserError, StorageError)
PIECES = [
    b"\0", b"\r", b"\n", b'"', b"'", b"\\", b"\\ud83c", b"\\u0000", b"\xff\xfe", b"\xef\xbb\xbf", b"NaN", b"null", b"true",
    b"-1", b"1e400", b"1" + b"0" * 400, b"9" * 30, b"[" * 300, b"{" * 300, b"[]", b"{}", b",", b";", b"\t", b"::", b"../",
    b"/etc/passwd", b"\xc3\x28", "é\u202e".encode(), b" " * 50, b"<script>", b"1970", b"2e10",
]  # fmt: skip


def mutated(data: bytes, draw: random.Random) -> bytes:
    """A few small changes of the kinds that files suffer."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        place = draw.randrange(len(out) + 1)
        match draw.randrange(7):
            case 0 if out:
                out[place - 1] ^= 1 << draw.randrange(8)
            case 1:
                out[place:place] = draw.choice(PIECES)
            case 2:
                del out[place : place + draw.randrange(1, 40)]
            case 3:
                out[place:place] = out[place : place + draw.randrange(1, 400)]
            case 4:
                end = min(len(out), place + draw.randrange(1, 30))
                out[place:end] = draw.choice(PIECES)
            case 5:
                del out[place:]
            case _:
                out[place:place] = bytes(draw.randrange(256) for _ in range(draw.randrange(1, 8)))
    return bytes(out)


def data_preparation(count: int, draw: random.Random, folder: Path) -> Iterator[str]:
    """Review and metadata files of every format.

    Drawing the report's charts takes 19 of every 20 seconds, so they are drawn for one input in 20; the
    numbers that they show are computed for all.
    """
    from latentrec.data import DataPrepConfig, data_report, prepare
    from tests.fixtures.review_files import grid, lines, titles

    rows = grid(4, 4)
    plain = [(r["reviewerID"], r["asin"], r["overall"], r["unixReviewTime"]) for r in rows]
    new = [{"user_id": u, "parent_asin": i, "rating": r, "timestamp": t * 1000} for u, i, r, t in plain]
    bases = [lines(rows), lines(new), json.dumps(rows).encode()]
    bases += [
        "".join(sign.join(map(str, row)) + "\n" for row in plain).encode() for sign in ("\t", "::", ",", ";")
    ]
    metas = [lines(titles(4)), b"".join(repr(row).encode() + b"\n" for row in titles(4))]
    for number in range(count):
        reviews, meta = draw.choice(bases), draw.choice(metas)
        if draw.random() < 0.7:
            reviews = mutated(reviews, draw)
        else:
            meta = mutated(meta, draw)
        if draw.random() < 0.2:
            reviews = gzip.compress(reviews)
            reviews = mutated(reviews, draw) if draw.random() < 0.5 else reviews
        (folder / "reviews").write_bytes(reviews)
        (folder / "meta").write_bytes(meta)
        config = DataPrepConfig(
            reviews=(str(folder / "reviews"),),
            metadata=(str(folder / "meta"),) if draw.random() < 0.6 else (),
            k_core=1,
            task=draw.choice(("next_item", "rating")),
            skip_bad_lines=draw.random() < 0.6,
            max_bad_share=1.0,
            title_filter=draw.choice(("strict", "none")),
        )
        drawn = draw.random() < 0.05
        try:
            with nullcontext() if drawn else patch.object(data_report, "column_chart", return_value=""):
                prepare(config, folder / "out" / str(number % 7))
            yield "used"
        except REFUSED as error:
            require_one_line(error)
            yield "refused"


def documents(count: int, draw: random.Random, folder: Path) -> Iterator[str]:
    """Manifests and checkpoint indexes."""
    from latentrec.storage import ArtifactWriter, CheckpointStore, read_manifest
    from latentrec.storage.checkpoint_garbage import find_checkpoint_garbage, scan
    from latentrec.storage.manifest import _checksum

    with ArtifactWriter(folder / "artifact", "model", {"lr": 1e-4}, {"dataset": "f" * 64}) as writer:
        (writer.path / "sub").mkdir()
        for name in ("a.bin", "sub/b.bin"):
            (writer.path / name).write_text(name)
    (folder / "state").mkdir()
    (folder / "state" / "a").write_text("a")

    def open_store() -> CheckpointStore:
        return CheckpointStore.for_work(
            str(folder / "root"), step="sft", config={}, dataset="d", parent=None, acquire=False
        )

    store = CheckpointStore.for_work(str(folder / "root"), step="sft", config={}, dataset="d", parent=None)
    store.save(folder / "state", 1, metadata={}, best=True)
    manifest, index = folder / "artifact" / "manifest.json", Path(store.uri) / "index.json"
    good = manifest.read_bytes(), index.read_bytes()
    for _ in range(count):
        which = draw.randrange(2)
        data = mutated(good[which], draw)
        if which == 0 and draw.random() < 0.5:  # as an attacker would: the checksum fits
            try:
                body = json.loads(data)
                body.pop("checksum", None)
                data = json.dumps({**body, "checksum": _checksum(body)}).encode()
            except (ValueError, AttributeError, TypeError, RecursionError):
                pass
        (manifest, index)[which].write_bytes(data)
        refused = 0
        attempts: tuple[Callable[[], Any], ...] = (
            (lambda: read_manifest(folder / "artifact"),)
            if which == 0
            else (
                lambda: open_store().latest(),
                lambda: open_store().best(),
                lambda: find_checkpoint_garbage(scan(str(folder / "root")), older_than_s=0, unused_for_s=0),
            )
        )
        for attempt in attempts:
            try:
                attempt()
            except REFUSED as error:
                require_one_line(error)
                refused += 1
        (manifest, index)[which].write_bytes(good[which])
        yield "refused" if refused else "used"


def scoring_bodies(count: int, draw: random.Random, folder: Path) -> Iterator[str]:
    """Bodies of requests to the scoring server, by bytes and by structure."""
    import numpy as np
    import pandas as pd
    from mlflow.models.utils import _enforce_schema

    from latentrec.catalog import Catalogue
    from latentrec.models.popularity import Popularity
    from latentrec.registry.packaging import signature_of
    from latentrec.serving.recommendation_service import RecommendationService, ServingModel
    from latentrec.serving.request_schemas import parse_parameters, parse_rows
    from latentrec.serving.scoring_server import answer

    keys = [f"I{number}" for number in range(50)]
    counts = np.arange(50, 0, -1)
    catalogue = Catalogue.from_items(keys, [f"Title {key}" for key in keys], counts)
    service = RecommendationService(ServingModel.of(Popularity(counts.astype(np.float32)), catalogue))
    schemas = {system: signature_of(system).inputs for system in ("latentr3", "reczero")}

    class Model:
        """What MLflow calls between the handler and ours: its schema, then the service."""

        def __init__(self, system: str):
            self.system = system

        def predict(self, frame: Any, params: Any = None) -> Any:
            frame = _enforce_schema(frame, schemas[self.system])
            rows = parse_rows(frame.to_dict("records"), rating=self.system == "reczero")
            if self.system == "reczero":
                return pd.DataFrame({"rating": [3.0] * len(rows)})
            answers = service.recommend(rows, parse_parameters(params))
            return pd.DataFrame({"item_keys": [found.item_keys for found in answers]})

    bases = [
        {"inputs": [{"history": ["I1", "I2"]}], "params": {"k": 5}},
        {"dataframe_records": [{"history": ["I1"], "history_titles": ["Title I1"]}]},
        {"dataframe_split": {"columns": ["history"], "data": [[["I1", "I9"]]]}},
        {"instances": [{"history": ["I1"], "exclude_items": ["I3"], "candidates": ["I4"]}]},
        {"inputs": [{"history": ["I1", "I2"], "history_ratings": [5, 4.0], "target": "I3"}]},
    ]
    scalars = st.one_of(
        st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), st.text(max_size=8),
        st.sampled_from(["I1", "I2", "history", "target", "k"]),
    )  # fmt: skip
    values = st.recursive(
        scalars,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(["history", "k", "target", "x"]), inner, max_size=3)
        ),
        max_leaves=8,
    )  # fmt: skip
    bodies: list[bytes] = []

    @hypothesis_seed(draw.randrange(1 << 30))
    @settings(
        max_examples=count // 2,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.sampled_from(["inputs", "instances", "dataframe_records", "dataframe_split"]),
        values,
        values,
        st.booleans(),
    )
    def collect(name: str, value: Any, params: Any, rows: bool) -> None:
        body = {
            name: [{"history": value}] if rows else value,
            **({"params": params} if params is not None else {}),
        }
        bodies.append(json.dumps(body).encode())

    collect()
    while len(bodies) < count:
        bodies.append(mutated(json.dumps(draw.choice(bases)).encode(), draw))
    for number, body in enumerate(bodies[:count]):
        system = ("latentr3", "reczero")[number % 2]
        response = answer(body, "application/json", Model(system), schemas[system])
        if response.status not in (200, 400):
            (folder / "body").write_bytes(body)
            raise AssertionError(f"{response.status}: {body[:300]!r}")
        yield "used" if response.status == 200 else "refused"


def parameters(count: int, draw: random.Random, folder: Path) -> Iterator[str]:
    """A pipeline's parameters and settings."""
    from latentrec.steps.parameters import REVIEWS, SYSTEMS, check_parameters, config_class
    from pipeline.dags import pipeline_of

    hostile: list[Any] = [
        -1, 0, 1, 2**31, 2**63, 10**400, -(10**400), float("nan"), float("inf"), -0.0, 1e-320, 1e308, "", " ", "none",
        "None", "nan", "inf", "1e400", "-1", "1_000", "0x10", "١", "true", True, None, [], {}, [[]], "x" * 5000, "a\0b",
        "\ud83c", "../x", "~/x", "$(touch x)", "'; x", "\x1b[2J", "2017-13-40", "9999-12-31", "tiny", "temporal", {"a": 1},
    ]  # fmt: skip
    names = {
        system: sorted(inspect.signature(pipeline_of(system).pipeline_func).parameters) for system in SYSTEMS
    }
    for _ in range(count):
        system = draw.choice(sorted(SYSTEMS))
        given_values = {draw.choice(names[system]): draw.choice(hostile) for _ in range(draw.randrange(3))}
        settings: Any = {}
        if draw.random() < 0.7:
            step = draw.choice(SYSTEMS[system])
            field = draw.choice(sorted(fields_of(config_class(step))))
            settings = draw.choice(
                ({step: {field: draw.choice(hostile)}}, {f"{step}.{field}": draw.choice(hostile)})
            )
        elif draw.random() < 0.3:
            settings = draw.choice(hostile)
        try:
            check_parameters(system, {REVIEWS: "x", **given_values}, settings)
            yield "used"
        except REFUSED:
            yield "refused"


def other_files(count: int, draw: random.Random, folder: Path) -> Iterator[str]:
    """Users to score, traces, settings, catalogues: see :mod:`tests.fuzz.user_files`."""
    from tests.fuzz.user_files import user_files

    yield from user_files(count, draw, folder, mutated)


CAMPAIGNS = {
    "data preparation": data_preparation,
    "manifests and indexes": documents,
    "scoring bodies": scoring_bodies,
    "parameters": parameters,
    "other files": other_files,
}


def peak_megabytes() -> float:
    """Most memory that this process has held; not the parent's, which ``ru_maxrss`` keeps across an exec."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main(name: str, count: int, seed: int, folder: Path) -> None:
    """Run one campaign below ``folder`` and print its figures."""
    inside = folder / "inside"
    inside.mkdir(parents=True)
    os.chdir(inside)
    (folder / "precious").write_text("mine")
    outcomes: dict[str, int] = {}
    began = time.monotonic()
    for outcome in CAMPAIGNS[name](count, random.Random(seed), inside):
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert sorted(os.listdir(folder)) == ["inside", "precious"], os.listdir(folder)
    assert (folder / "precious").read_text() == "mine"
    peak = peak_megabytes()
    seconds = time.monotonic() - began
    print(json.dumps({"count": sum(outcomes.values()), **outcomes, "peak_mb": peak, "seconds": seconds}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
