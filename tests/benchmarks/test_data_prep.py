"""The contenders of the data benchmark do the same job: equal rows in equal order, on a small file."""

import pytest

from benchmarks import data_prep_rivals
from benchmarks.data_prep import TABLES, compare
from benchmarks.data_prep_reviews import write_reviews
from latentrec.data import DataPrepConfig, prepare


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    reviews = write_reviews(folder / "reviews.json", 6000)
    prepare(DataPrepConfig(reviews=(str(reviews),)), folder / "ours")
    return reviews, folder / "ours"


@pytest.mark.parametrize("contender", data_prep_rivals.RIVALS)
def test_contender_writes_our_rows(ours, tmp_path, contender):
    if contender != "json":
        pytest.importorskip(contender)
    reviews, directory = ours
    data_prep_rivals.RIVALS[contender](reviews, tmp_path)
    compare(directory, tmp_path)


def test_comparison_notices_another_row(ours, tmp_path):
    import pyarrow.parquet as pq

    reviews, directory = ours
    data_prep_rivals.with_json(reviews, tmp_path)
    table = pq.read_table(tmp_path / "test.parquet")
    pq.write_table(table.slice(1), tmp_path / "test.parquet")
    with pytest.raises(RuntimeError, match=r"another test\.parquet"):
        compare(directory, tmp_path)
    assert "test" in TABLES
