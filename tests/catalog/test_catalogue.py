"""Item identity and title identity, and the file that carries them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latentrec.catalog import Catalogue
from latentrec.serving.rating_service import read_items
from tests.errors import refused

KEYS = ["A", "B", "C", "D", "E"]
TITLES = ["Hits", "Blue", "Hits", 'Quote "x"', "Hits"]
COUNTS = np.array([3, 9, 7, 0, 7])


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue.from_items(KEYS, TITLES, COUNTS)


def test_items_of_a_title_stand_by_popularity_then_item_id(catalogue):
    assert catalogue.items_of_title(0).tolist() == [2, 4, 0]
    assert catalogue.items_of_title(1).tolist() == [1]


def test_title_identity_is_apart_from_item_identity(catalogue):
    assert (catalogue.n_items, catalogue.n_titles) == (5, 3)
    assert catalogue.unique_titles == ["Hits", "Blue", 'Quote "x"']
    assert catalogue.title_ids.tolist() == [0, 1, 0, 2, 0]


def test_written_catalogue_reads_back_the_same(catalogue, tmp_path):
    catalogue.write(tmp_path / "items.parquet")
    again = Catalogue.read(tmp_path / "items.parquet")
    assert again.item_keys == KEYS
    assert again.titles == TITLES
    assert again.title_ids.tolist() == catalogue.title_ids.tolist()
    assert again.train_counts.tolist() == COUNTS.tolist()


def test_rows_out_of_order_are_put_in_order_of_item_id(catalogue, tmp_path):
    catalogue.write(tmp_path / "items.parquet")
    table = pq.read_table(tmp_path / "items.parquet").take(pa.array([4, 2, 0, 1, 3]))
    pq.write_table(table, tmp_path / "shuffled.parquet")
    assert Catalogue.read(tmp_path / "shuffled.parquet").item_keys == KEYS


def test_keys_and_titles_alone_are_enough(tmp_path):
    pq.write_table(pa.table({"item_key": KEYS, "title": TITLES}), tmp_path / "items.parquet")
    catalogue = Catalogue.read(tmp_path / "items.parquet")
    assert catalogue.n_titles == 3
    assert catalogue.train_counts.tolist() == [0] * 5


@pytest.mark.parametrize("column", ["item_key", "title", "description"])
@pytest.mark.parametrize("read", [Catalogue.read, read_items], ids=["catalogue", "rated items"])
def test_text_that_is_not_utf8_is_refused(tmp_path, read, column):
    bad = pa.array([b"\xff\xfe", b"Blue"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 2, bad.buffers())
    columns = {name: ["x", "y"] for name in ("item_key", "title", "description")}
    pq.write_table(pa.table({**columns, column: text}), tmp_path / "items.parquet")
    if read == Catalogue.read and column == "description":
        assert read(tmp_path / "items.parquet").n_items == 2  # which it does not read
        return
    with refused("catalog.bad_items", "items.parquet", column):
        read(tmp_path / "items.parquet")


def test_missing_column_is_named(tmp_path):
    pq.write_table(pa.table({"asin": KEYS}), tmp_path / "items.parquet")
    with refused("catalog.missing_column", "items.parquet", "item_key"):
        Catalogue.read(tmp_path / "items.parquet")


def test_repeated_key_is_named():
    with refused("catalog.repeated_key", "item_key", "A"):
        Catalogue.from_items(["A", "B", "A"], ["x", "y", "z"])


def test_title_id_that_joins_different_titles_is_refused():
    with refused("catalog.bad_items", "title_id", "0", "B", "y"):
        Catalogue(["A", "B"], ["x", "y"], np.array([0, 0]))


def test_another_days_catalogue_is_mapped_by_key(catalogue):
    yesterday = Catalogue.from_items(["D", "gone", "A"], ["t", "u", "v"])
    assert catalogue.item_map_from(yesterday).tolist() == [3, -1, 0]
