"""Manifests and checkpoint indexes from elsewhere: a changed byte is noticed, a name never leads outside."""

import json
import random
from pathlib import Path

import pytest

from latentrec.core import UserError
from latentrec.storage import (
    ArtifactWriter,
    CheckpointStore,
    read_manifest,
)
from latentrec.storage.checkpoint_garbage import scan
from latentrec.storage.manifest import listed_files, parse_manifest
from latentrec.storage.names import check_relative_name
from tests.errors import refused

OUTSIDE = [
    "../x",
    "a/../../x",
    "/etc/passwd",
    "..",
    ".",
    "",
    "a//b",
    "a/",
    "a\\..\\x",
    "a\0b",
    "a\nb",
    "\ud83c",
    7,
    None,
]


def make(output: Path) -> Path:
    with ArtifactWriter(output, "model", {"lr": 1e-4, "name": "x"}, {"dataset": "f" * 64}) as writer:
        (writer.path / "model.safetensors").write_text("weights")
        writer.counts = {"steps": 3}
        writer.extra = {"train_end": 1_500_000_000, "boundaries": {10: 1, 9: 2}}
    return output


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_outside_are_refused(name):
    with refused("manifest.bad_file_name", "m.json"):
        check_relative_name(name, "m.json")


@pytest.mark.parametrize("name", ["a", "sub/b.parquet", "ünïcode.txt", ".hidden", "a..b", "..."])
def test_plain_relative_names_are_taken(name):
    assert check_relative_name(name, "m.json") == name


def test_every_changed_byte_of_a_manifest_is_noticed(tmp_path):
    data = (make(tmp_path / "model") / "manifest.json").read_bytes()
    good = parse_manifest(data, "m.json")
    random.seed(0)
    for place in range(len(data)):
        for value in {data[place] ^ 1, data[place] ^ 0x20, random.randrange(256)} - {data[place]}:
            changed = data[:place] + bytes([value]) + data[place + 1 :]
            try:
                found = parse_manifest(changed, "m.json")
            except UserError:
                continue
            assert found == good, changed[max(place - 40, 0) : place + 40]


def resealed(body: dict, **changes) -> bytes:
    """A manifest whose checksum fits, as an attacker would write it."""
    from latentrec.storage.manifest import _checksum

    body = {**body, **changes}
    body.pop("checksum")
    return json.dumps({**body, "checksum": _checksum(body)}).encode()


@pytest.mark.parametrize("name", [name for name in OUTSIDE if isinstance(name, str)])
def test_manifest_with_a_name_outside_neither_reads_nor_writes_there(tmp_path, name):
    place = make(tmp_path / "place" / "model")
    (tmp_path / "place" / "x").write_text("outside")
    body = json.loads((place / "manifest.json").read_bytes())
    entry = next(iter(body["files"].values()))
    (place / "manifest.json").write_bytes(resealed(body, files={name: entry}))
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with refused("manifest.bad_file_name", "manifest.json"):
        read_manifest(place)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before
    assert (tmp_path / "place" / "x").read_text() == "outside"


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"7", b'"text"', b"{}", b'{"schema_version": true}', b'{"schema_version": [2]}',
     b"[" * 100_000, b'{"schema_version": 2, "checksum": {}}', b"\xff\xfe{}", b'{"schema_version": 1e999}',
     b"1" * 5000],
)  # fmt: skip
def test_malformed_manifest_is_one_clear_line(tmp_path, data):
    (tmp_path / "manifest.json").write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_manifest(tmp_path)
    assert caught.value.code.startswith("manifest.")
    assert "manifest.json: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [{"files": []}, {"files": {"a": 1}}, {"files": {"a": {"bytes": -1, "sha256": "0" * 64}}},
     {"files": {"a": {"bytes": True, "sha256": "0" * 64}}}, {"files": {"a": {"bytes": 1, "sha256": "zz"}}},
     {"files": {"manifest.json": {"bytes": 1, "sha256": "0" * 64}}}, {"config": None}, {"counts": 3},
     {"kind": ["model"]}, {"fingerprint": 5}, {"inputs": "x"}],
)  # fmt: skip
def test_manifest_of_another_shape_is_one_clear_line(tmp_path, changes):
    body = json.loads((make(tmp_path / "m") / "manifest.json").read_bytes())
    with refused("manifest.invalid", "m.json: "):
        parse_manifest(resealed(body, **changes), "m.json")


def test_kind_that_leads_outside_is_refused(tmp_path):
    body = json.loads((make(tmp_path / "m") / "manifest.json").read_bytes())
    with refused("manifest.bad_file_name", "m.json: ", "'../model'"):
        parse_manifest(resealed(body, kind="../model"), "m.json")


def test_manifest_of_the_schema_before_is_read(tmp_path):
    body = json.loads((make(tmp_path / "m") / "manifest.json").read_bytes())
    del body["checksum"]
    with refused("manifest.changed_files"):
        parse_manifest(json.dumps(body).encode(), "m.json")
    assert parse_manifest(json.dumps({**body, "schema_version": 1}).encode(), "m.json").kind == "model"


@pytest.mark.parametrize(("version", "read"), [(2, True), (3, True), (4, True), (5, False), (0, False)])
def test_manifests_of_earlier_schemas_are_read_and_of_later_ones_refused(tmp_path, version, read):
    body = json.loads((make(tmp_path / "m") / "manifest.json").read_bytes())
    data = resealed(body, schema_version=version)
    if read:
        assert parse_manifest(data, "m.json").schema_version == version
    else:
        with refused("manifest.other_version", "m.json", f"schema_version is {version}", "reads 4"):
            parse_manifest(data, "m.json")


def test_files_planted_beside_the_listed_ones_are_not_seen(tmp_path):
    model = make(tmp_path / "model")
    (model / "adapter_config.json").write_text("{}")
    with listed_files(model, read_manifest(model)) as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "model.safetensors"]
        assert (folder / "model.safetensors").read_text() == "weights"
    assert (model / "model.safetensors").read_text() == "weights"


@pytest.fixture
def checkpoints(tmp_path) -> CheckpointStore:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "a").write_text("a")
    (tmp_path / "root").mkdir()
    store = CheckpointStore.for_work(str(tmp_path / "root"), step="sft", config={}, dataset="d", parent=None)
    store.save(tmp_path / "state", 1, metadata={})
    return store


def change_index(store: CheckpointStore, change) -> None:
    path = Path(store.uri) / "index.json"
    body = json.loads(path.read_bytes())
    change(body)
    path.write_text(json.dumps(body))


def rename_file(body: dict, name: str) -> None:
    entry = body["checkpoints"][0]
    entry["files"] = {name: next(iter(entry["files"].values()))}


@pytest.mark.parametrize("name", [name for name in OUTSIDE if isinstance(name, str)])
@pytest.mark.parametrize("where", ["file", "id"])
def test_index_with_a_name_outside_neither_reads_nor_deletes_there(checkpoints, tmp_path, name, where):
    victim = tmp_path / "root" / "x"
    victim.write_text("outside")
    if where == "file":
        change_index(checkpoints, lambda body: rename_file(body, name))
    else:
        change_index(checkpoints, lambda body: body["checkpoints"][0].update(id=name))
    for attempt in (
        checkpoints.latest,
        checkpoints.best,
        lambda: scan(str(tmp_path / "root")),
        lambda: CheckpointStore.for_work(
            str(tmp_path / "root"), step="sft", config={}, dataset="d", parent=None
        ).clear(),
    ):
        with refused("manifest.bad_file_name", "index.json"):
            attempt()
    assert victim.read_text() == "outside"


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.update(token="1"),
        lambda body: body.update(token=True),
        lambda body: body.update(token=-1),
        lambda body: body.update(checkpoints={}),
        lambda body: body.update(checkpoints=[7]),
        lambda body: body.update(best=7),
        lambda body: body.update(work=[]),
        lambda body: body.update(work={"step": 5}),
        lambda body: body.update(extra=1),
        lambda body: body["checkpoints"][0].update(step="1"),
        lambda body: body["checkpoints"][0].update(created=1e300),
        lambda body: body["checkpoints"][0].update(metadata=[]),
        lambda body: body["checkpoints"][0].pop("created"),
        lambda body: body["checkpoints"][0].update(files=[]),
    ],
)
def test_index_of_another_shape_is_one_clear_line(checkpoints, tmp_path, change):
    change_index(checkpoints, change)
    for attempt in (checkpoints.latest, lambda: scan(str(tmp_path / "root"))):
        with refused("checkpoint.bad_index", "index.json: "):
            attempt()


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b'{"schema_version": 1}', b"[" * 100_000, b"\xff"])
def test_malformed_index_is_one_clear_line(checkpoints, tmp_path, data):
    (Path(checkpoints.uri) / "index.json").write_bytes(data)
    for attempt in (checkpoints.latest, lambda: scan(str(tmp_path / "root"))):
        with refused("checkpoint.bad_index", "index.json: "):
            attempt()
