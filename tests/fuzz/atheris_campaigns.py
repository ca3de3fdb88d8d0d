"""Coverage-guided campaigns: ``python -m tests.fuzz.atheris_campaigns NAME RUNS SEED FOLDER``, with atheris.

Each parser is given bytes that atheris grows towards new branches of it. Anything but a refusal
(:class:`UserError`, :class:`StorageError`, :class:`BadRequest`) ends the campaign with exit code 77, as do 1 GB
of memory or a minute on one input.
"""

from __future__ import annotations

# ruff: noqa: E501
import json
import sys
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["latentrec"]):
    from latentrec.core import UserError
    from latentrec.data.reading import byte_streams, formats, input_files, line_reader, reviews
    from latentrec.models import gguf as gguf_reader
    from latentrec.serving import request_schemas, scoring_server
    from latentrec.storage import StorageError, checkpoint_index, manifest
from tests.fuzz.refusals import require_one_line

INSTRUMENTED = (byte_streams, formats)
REFUSED = (UserError, StorageError, request_schemas.BadRequest)
Campaign = tuple[Callable[[bytes], object], list[bytes]]


def review_lines(folder: Path) -> Campaign:
    """A review file of any format, from its first lines to columns."""
    from tests.fixtures.review_files import grid, lines

    path = folder / "reviews"
    rows = grid(3, 3)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        for texts_in in (None, folder):
            files = input_files.find_inputs((str(path),))
            reviews.read_reviews(files, line_reader.BadLines(True, 1.0), texts_in=texts_in)

    ratings = [
        ",".join(map(str, (r["reviewerID"], r["asin"], r["overall"], r["unixReviewTime"]))) for r in rows
    ]
    return read, [lines(rows), json.dumps(rows).encode(), "\n".join(ratings).encode()]


def documents(folder: Path) -> Campaign:
    """Manifests and checkpoint indexes."""

    def read(data: bytes) -> None:
        for parse in (
            lambda: manifest.parse_manifest(data, "manifest.json"),
            lambda: checkpoint_index.parse_index(data, "index.json", "remove it"),
        ):
            try:
                parse()
            except REFUSED:
                continue

    body = {"schema_version": manifest.SCHEMA_VERSION, "kind": "model", "fingerprint": "f", "config": {}, "inputs": {},
            "counts": {}, "files": {"a/b": {"bytes": 1, "sha256": "0" * 64}}, "created_by": "x"}  # fmt: skip
    body["checksum"] = manifest._checksum(body)
    index = checkpoint_index.Index(work={"step": "sft"}, token=1, holder="h", checkpoints=[], best=None)
    return read, [json.dumps(body).encode(), index.to_bytes()]


def gguf_files(folder: Path) -> Campaign:
    """Header, fields and table of tensors of a GGUF file, and what it says of its origin."""
    with atheris.instrument_imports(include=["gguf"]):
        import gguf

    path = folder / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Test model")
    writer.add_block_count(1)
    writer.add_token_list(["a", "b"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    good = path.read_bytes()

    def read(data: bytes) -> None:
        path.write_bytes(data)
        gguf_reader.origin_of(path, gguf_reader._open(path, "model"))

    return read, [good]


def scoring_bodies(folder: Path) -> Campaign:
    """Bodies of requests, up to the rows and parameters that the model is given."""

    def read(data: bytes) -> None:
        records, params = scoring_server.read_request(data)
        request_schemas.parse_rows(records, rating=False)
        request_schemas.parse_parameters(params)

    return read, [
        json.dumps({"inputs": [{"history": ["I1"], "exclude_items": ["I2"]}], "params": {"k": 5}}).encode(),
        json.dumps({"dataframe_split": {"columns": ["history"], "data": [[["I1"]]]}}).encode(),
    ]


CAMPAIGNS = {
    "review lines": review_lines,
    "manifests and indexes": documents,
    "gguf files": gguf_files,
    "scoring bodies": scoring_bodies,
}


def main(name: str, runs: int, seed: int, folder: Path) -> None:
    """Run one campaign below ``folder``; leaves through atheris, with its exit code."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True)
    read, good = CAMPAIGNS[name](folder)
    for number, data in enumerate(good):
        (corpus / str(number)).write_bytes(data)
        read(data)  # sound as it stands

    def one_input(data: bytes) -> None:
        try:
            read(data)
        except REFUSED as error:
            require_one_line(error)

    options = [f"-runs={runs}", f"-seed={seed}", "-max_len=4096", "-rss_limit_mb=1000", "-timeout=60"]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={folder}/", str(corpus)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
