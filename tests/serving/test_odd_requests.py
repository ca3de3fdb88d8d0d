"""Odd users, catalogues and bodies: refused by name, never taken for something else."""

import asyncio
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from latentrec.catalog import Catalogue
from latentrec.serving.request_schemas import (
    BadRequest,
    RatingRow,
    RecommendationRow,
    parse_parameters,
    parse_rows,
)
from latentrec.serving.scoring_server import MAX_BYTES, bounded_body, read_request
from latentrec.steps.users_to_score import _users_of_lines, _users_of_parquet
from tests.errors import refused


@pytest.mark.parametrize("key", [None, "", True, 1.5, []])
def test_a_user_without_a_key_is_refused(tmp_path, key):
    path = tmp_path / "users.jsonl"
    path.write_text(
        json.dumps({"user_key": "U1", "history": []}) + "\n" + json.dumps({"user_key": key, "history": []})
    )
    with refused("users.bad_row", "2"):
        list(_users_of_lines(path, "users.jsonl"))


def test_a_null_user_in_parquet_is_refused(tmp_path):
    table = pa.table(
        {"user_key": pa.array(["U1", None]), "history": pa.array([["I1"], []], pa.list_(pa.string()))}
    )
    pq.write_table(table, tmp_path / "users.parquet")
    with refused("users.bad_row", "2", "user_key"):
        list(_users_of_parquet(tmp_path / "users.parquet", "users.parquet"))


@pytest.mark.parametrize(
    ("keys", "titles", "named"),
    [
        (["I1", None], ["a", "b"], ("row 2", "'item_key'", "None")),
        ([1, 2], ["a", "b"], ("row 1", "'item_key'", "1")),
        (["I1", "I2"], ["a", None], ("row 2", "'title'", "None")),
        (["I1", ""], ["a", "b"], ("row 2", "'item_key'", "''")),
    ],
)
def test_a_new_catalogue_with_holes_is_refused(tmp_path, keys, titles, named):
    pq.write_table(pa.table({"item_key": keys, "title": titles}), tmp_path / "items.parquet")
    with refused("catalog.bad_items", "items.parquet", *named):
        Catalogue.read(tmp_path / "items.parquet")


@pytest.mark.parametrize("rating", [10**400, -(10**400), float("nan"), float("inf"), True])
def test_a_rating_without_bounds_is_refused(rating):
    with pytest.raises(BadRequest, match=r"row 0\.history_ratings"):
        parse_rows([{"history": ["I1"], "history_ratings": [rating], "target": "I2"}], rating=True)


def test_a_body_is_read_no_further_than_its_limit():
    class Endless:
        parts = 0

        async def stream(self):
            while True:
                self.parts += 1
                yield b"x" * (1 << 20)

    request = Endless()
    body = asyncio.run(bounded_body(request))
    assert len(body) == MAX_BYTES + 1
    assert request.parts <= 18
    with pytest.raises(BadRequest, match=str(MAX_BYTES)):
        read_request(body)


def test_a_list_is_refused_at_its_first_bad_entry():
    """A body may hold millions; one error each would take gigabytes."""
    with pytest.raises(ValidationError) as refusal:
        RecommendationRow(history=[1] * 500)
    assert refusal.value.error_count() == 1
    with pytest.raises(ValidationError) as refusal:
        RatingRow(["a"], history_ratings=["5"] * 500, target="b")
    assert refusal.value.error_count() == 1


@pytest.mark.parametrize("sign", [1, -1])
def test_a_number_of_more_digits_than_python_prints_is_refused(sign):
    k = sign * 10**5000
    with pytest.raises(BadRequest, match=r"params\.k is .*from 1 to 200"):
        parse_parameters({"k": k})
