"""One shop, one name: what a run's model is called where nobody says."""

import pytest

from latentrec.steps.model_name import default_model_name


@pytest.mark.parametrize(
    ("reviews", "name"),
    [
        (["/data/amazon2018/Gift_Cards/Gift_Cards_5.json.gz"], "latentr3-gift-cards"),
        (["gs://bucket/raw/Office_Products.json.gz"], "latentr3-office-products"),
        (
            ["https://site.example/files/reviews_Musical_Instruments_5.json.gz?x=1"],
            "latentr3-musical-instruments",
        ),
        (["runs/sample/reviews.json"], "latentr3-sample"),
        (["/x/runs/sample/seed-42/reviews.json"], "latentr3-sample"),
        (["/x/runs/sample/seed-43/reviews.json"], "latentr3-sample-43"),
        (["/home/ann/Shop A/reviews.csv"], "latentr3-shop-a"),
        (
            ["s3://bucket/toys/2024/part-00000.parquet", "s3://bucket/toys/2024/part-00001.parquet"],
            "latentr3-toys",
        ),
        (["toys_2023.jsonl", "toys_2024.jsonl"], "latentr3-toys"),
        (["CDs.json", "Books.json"], "latentr3-cds"),
        (["gs://bucket/reviews_*.json"], "latentr3-bucket"),
        (["gs://bucket/toys/reviews/year=2018/"], "latentr3-toys"),
        (["ml-100k/u.data"], "latentr3-ml-100k"),
        (["reviews.json"], "latentr3-shop"),
        (["日本.csv"], "latentr3-shop"),
        (["../../x'; touch Y;'/reviews.json"], "latentr3-x-touch-y"),
        ([], "latentr3-shop"),
    ],
)
def test_name_is_system_and_dataset(reviews, name):
    assert default_model_name("latentr3", reviews) == name


def test_two_shops_have_two_names():
    assert default_model_name("lares", ["Gift_Cards_5.json.gz"]) != default_model_name(
        "lares", ["Office.json"]
    )


def test_a_name_holds_nothing_of_a_password_or_a_signature():
    name = default_model_name("latentr3", ["https://ann:hunter2@shop.example/reviews.json?sig=s3cret"])
    assert "hunter2" not in name
    assert "s3cret" not in name
    assert "ann" not in name
