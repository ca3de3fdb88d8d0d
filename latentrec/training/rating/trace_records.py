"""Reasoning traces as JSON lines: what RecOne's cold start learns from, checked line by line.

A line is ``{"prompt", "completion", "rating"}`` and, where the trace belongs to a sample of a dataset,
``"row"`` (of the target in ``interactions.parquet``); ``"source"`` and ``"regenerated"`` name its
origin.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from latentrec.core import UserError
from latentrec.core.documents import parse_document
from latentrec.core.text import one_line, printable
from latentrec.prompts.rating_format import FormatFault, RatingScale, parse_answer
from latentrec.storage import local_path, store_for

_LONGEST_LINE = 16 << 20


@dataclass(frozen=True)
class Trace:
    """One reasoning trace.

    Attributes:
        prompt: what was asked.
        completion: a valid answer; its rating is ``rating`` or within the tolerance it was accepted with.
        rating: the true rating.
        row: of the target in ``interactions.parquet``; −1 where the trace belongs to no dataset.
        source: ``template`` or the model that wrote it.
        regenerated: whether the teacher was given the true rating.
    """

    prompt: str
    completion: str
    rating: float
    row: int = -1
    source: str = ""
    regenerated: bool = False


def write_traces(traces: Iterable[Trace], output: str) -> None:
    """Write a trace file, whole or not at all, in order of ``row``."""
    lines = [
        json.dumps(asdict(trace), ensure_ascii=False, sort_keys=True)
        for trace in sorted(traces, key=lambda trace: trace.row)
    ]
    store_for(output).write_bytes(output, ("\n".join(lines) + "\n").encode())


def is_trace_file(path: Path) -> bool:
    """Whether a file begins with a line as :func:`write_traces` writes it (hand-made files may have less)."""
    with path.open("rb") as stream:
        try:
            record = json.loads(stream.readline(_LONGEST_LINE))
        except (ValueError, RecursionError):
            return False
    return isinstance(record, dict) and set(record) == set(Trace.__dataclass_fields__)


def read_traces(path: str, scale: RatingScale, *, max_error: float | None = None) -> list[Trace]:
    """Read and check a trace file.

    Args:
        path: JSON lines, a directory's or ``gs://`` location.
        scale: ratings that may be given.
        max_error: how far a completion's rating may be from the true one; ``None`` checks the format only.

    Raises:
        UserError: the file is missing or empty, or a line is no JSON object, lacks a field, or holds a
            completion that the strict parser refuses; the message names file and line.
    """
    traces = []
    try:
        with store_for(path).open_read(path) as stream:
            number = 0
            while line := stream.readline(_LONGEST_LINE + 1):
                number += 1
                if line.strip():
                    traces.append(_read_line(line, f"{path}, line {number:,}", scale, max_error))
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such trace file; make one with 'latentrec traces'", code="traces.not_found"
        ) from None
    if not traces:
        raise UserError(f"{path}: holds no traces; make them with 'latentrec traces'", code="traces.empty")
    return traces


def _read_line(line: bytes, where: str, scale: RatingScale, max_error: float | None) -> Trace:
    if len(line) > _LONGEST_LINE:
        raise UserError(f"{where}: longer than {_LONGEST_LINE >> 20} MB, no trace", code="traces.bad_record")
    try:
        record = parse_document(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 text ({one_line(error)})", code="traces.not_text") from None
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({one_line(error)})", code="traces.bad_record") from None
    if not isinstance(record, dict):
        raise UserError(
            f"{where}: a {type(record).__name__}, expected an object with prompt, completion, rating",
            code="traces.bad_record",
        )
    for name, kinds in (("prompt", (str,)), ("completion", (str,)), ("rating", (int, float))):
        if not isinstance(record.get(name), kinds) or isinstance(record.get(name), bool):
            shown = printable(ascii(record.get(name)))[:60]
            raise UserError(
                f"{where}: '{name}' is {shown}, expected {_KINDS[name]}", code="traces.bad_record"
            )
        if isinstance(record[name], str) and (sign := _SURROGATE.search(record[name])):
            raise UserError(
                f"{where}: '{name}' holds U+{ord(sign[0]):04X}, half of a character", code="traces.bad_record"
            )
    if not scale.low <= record["rating"] <= scale.high:  # compared as it is: 10^400 has no float
        shown = ascii(record["rating"])[:60]
        raise UserError(
            f"{where}: 'rating' is {shown}, the scale is {scale.low:g} to {scale.high:g}",
            code="traces.bad_rating",
        )
    rating = float(record["rating"])
    answer = parse_answer(record["completion"], scale)
    if isinstance(answer, FormatFault):
        raise UserError(f"{where}: 'completion' breaks the format: {answer.detail}", code="traces.bad_format")
    if max_error is not None and abs(answer.rating - rating) > max_error:
        raise UserError(
            f"{where}: 'completion' rates {answer.rating:g}, the true rating is {rating:g}, "
            f"more than {max_error:g} apart",
            code="traces.bad_rating",
        )
    known = {name: record[name] for name in Trace.__dataclass_fields__ if name in record}
    return Trace(**{**known, "rating": rating})


_SURROGATE = re.compile("[\ud800-\udfff]")
_KINDS = {"prompt": "text", "completion": "text", "rating": "a number"}


class Journal:
    """Answers that were paid for, one JSON line each, on disk before anything is done with them.

    A killed run that is started again finds them here and does not ask for them again. A last line that was
    cut off by the kill is dropped; its answer is the one that may be paid for twice.
    """

    def __init__(self, output: str):
        """Open the journal beside a trace file and read what it holds.

        Raises:
            UserError: the output is not on this machine: a journal needs appending and flushing.
        """
        path = local_path(output)
        self.path = Path(str(path) + ".journal")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.entries: dict[str, dict] = {}
        if self.path.exists():
            whole = self.path.read_bytes()
            kept = whole[: whole.rfind(b"\n") + 1]
            for number, line in enumerate(kept.splitlines(), 1):
                try:
                    entry = json.loads(line)
                    self.entries[entry["key"]] = entry
                except (ValueError, RecursionError, KeyError, TypeError):
                    raise UserError(
                        f"{self.path}, line {number:,}: not a journal of answers; move the file away or "
                        "choose another --output",
                        code="traces.bad_journal",
                    ) from None
            if len(kept) != len(whole):
                self.path.write_bytes(kept)
        self._stream = self.path.open("ab")

    def add(self, entry: dict) -> None:
        """Store an answer durably; ``entry`` has its ``key``."""
        import os

        self._stream.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self.entries[entry["key"]] = entry

    def close(self, *, remove: bool) -> None:
        """Close it, and remove it once the traces are written."""
        self._stream.close()
        if remove:
            self.path.unlink(missing_ok=True)
