"""Scoring in shards: the merged file is the unsharded one, and wrong sets of shards are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentrec.cli import main
from latentrec.steps.batch_scoring import FILE_NAME
from latentrec.steps.score_shards import Shard, merge_shards
from tests.errors import refused
from tests.fixtures.shop import decision


@pytest.fixture
def score(register, tmp_path):
    """Score 23 users in batches of 4 to a folder; with a shard, a part of them."""
    model = register(decision()).model
    lines = [
        {"user_key": f"u{n}", "history": [f"B{(n * step) % 30:04d}" for step in range(1, n % 5 + 1)]}
        for n in range(23)
    ]
    users = tmp_path / "users.jsonl"
    users.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def call(folder: str, shard: str | None = None, k: int = 5) -> Path:
        words = ["batch-score", "--model", model.uri, "--users", str(users), "--k", str(k)]
        words += ["--output", str(tmp_path / folder), "--batch-size", "4"]
        main(words + (["--shard", shard] if shard else []))
        return tmp_path / folder

    return call


def test_merged_shards_are_the_unsharded_file_byte_for_byte(score, capsys):
    whole = (score("whole") / FILE_NAME).read_bytes()
    for count in (2, 4, 9):  # six batches: of nine shards three are empty
        for number in reversed(range(1, count + 1)):
            folder = score(f"parts-{count}", f"{number}/{count}")
        main(["batch-score", "--merge", str(count), "--output", str(folder)])
        assert "23 users" in capsys.readouterr().out
        assert (folder / FILE_NAME).read_bytes() == whole


def test_a_lost_shard_is_scored_again_alone_to_the_same_bytes(score):
    folder = score("parts", "1/2")
    first = (folder / Shard(1, 2).file_name(FILE_NAME)).read_bytes()
    score("parts", "2/2")
    lost = folder / Shard(2, 2).file_name(FILE_NAME)
    before = lost.read_bytes()
    lost.unlink()
    with refused("shards.not_found", "00002-of-00002.parquet", "--shard", "2/2"):
        merge_shards(str(folder), 2, FILE_NAME)
    assert not (folder / FILE_NAME).exists()
    score("parts", "2/2")
    assert lost.read_bytes() == before
    assert (folder / Shard(1, 2).file_name(FILE_NAME)).read_bytes() == first


def test_shards_that_do_not_belong_together_are_refused(score):
    folder = score("parts", "1/2")
    second = folder / Shard(2, 2).file_name(FILE_NAME)
    score("parts", "2/2", k=3)
    with refused("shards.other_options"):
        merge_shards(str(folder), 2, FILE_NAME)
    second.write_bytes((folder / Shard(1, 2).file_name(FILE_NAME)).read_bytes())
    with refused("shards.other_users", "1/2", "2/2"):
        merge_shards(str(folder), 2, FILE_NAME)
    second.write_bytes(b"PAR1 cut off")
    with refused("shards.unreadable"):
        merge_shards(str(folder), 2, FILE_NAME)
    assert not (folder / FILE_NAME).exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model m --users u --output o --shard 0/4", "--shard is '0/4', expected I/N"),
        ("--model m --users u --output o --shard 5/4", "--shard is '5/4', expected I/N"),
        ("--model m --users u --output o --shard 2", "--shard is '2', expected I/N"),
        ("--model m --users u --output o.parquet --shard 1/2", "expected a folder"),
        ("--users u --output o", "--model is missing"),
        ("--model m --output o", "--users is missing"),
        ("--output o --merge 1", "--merge is 1"),
        ("--output o --merge 2 --shard 1/2", "not allowed with"),
    ],
)
def test_wrong_shards_exit_2_with_the_reason(tracked, capsys, words, message):
    with pytest.raises(SystemExit) as stopped:
        main(["batch-score", *words.split()])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
