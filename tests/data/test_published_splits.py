"""Published splits come out of the raw events; counts of the published recipe hold. Needs the real data."""

import ast
import csv
import gzip
from collections import Counter

import pytest

from latentrec.cli import main
from latentrec.data import Dataset
from latentrec.storage import read_manifest


def published_rows(path):
    with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            yield (
                row["user_id"],
                tuple(ast.literal_eval(row["item_asins"])),
                row["item_asin"],
                float(row["rating"]),
                int(row["timestamp"]),
            )


def data_prep(reviews, metadata, folder, flags):
    files = ["--reviews", str(reviews), "--metadata", str(metadata)]
    main(["data-prep", *files, "--output", str(folder / "out"), *flags.split()])


@pytest.mark.parametrize(("category", "rows"), [("Office_Products", 9732), ("CDs_and_Vinyl", 12313)])
def test_samples_contain_every_published_row(shared_data, tmp_path, category, rows):
    folder = shared_data / "amazon2018" / category
    flags = "--k-core 1 --title-filter none --duplicates keep --split temporal"
    data_prep(folder / f"{category}.json.gz", folder / f"meta_{category}.json.gz", tmp_path, flags)
    dataset = Dataset(tmp_path / "out")
    keys, users = dataset.item_keys, dataset.users["user_key"].to_pylist()
    ours: Counter = Counter()
    for name in ("train", "valid", "test"):
        split = dataset.split(name)
        for index, history in enumerate(split.histories()):
            ours[
                users[split.user_ids[index]],
                tuple(keys[item] for item in history),
                keys[split.targets[index]],
                float(split.ratings[index]),
                int(split.timestamps[index]),
            ] += 1
    published = Counter(
        row for name in ("valid", "test") for row in published_rows(folder / "published" / f"{name}.csv.gz")
    )
    assert sum(published.values()) == rows
    assert published - ours == Counter()


def test_published_recipe_on_gift_cards_gives_the_published_counts(shared_data, tmp_path):
    folder = shared_data / "amazon2018" / "Gift_Cards"
    flags = "--title-filter paper --duplicates keep --k-core 5"
    data_prep(folder / "Gift_Cards_5.json.gz", folder / "meta_Gift_Cards.json.gz", tmp_path, flags)
    counts = read_manifest(tmp_path / "out", "dataset").counts
    assert (counts["interactions"], counts["users"], counts["items"]) == (2960, 456, 147)


def test_2014_reviews_without_metadata(shared_data, tmp_path):
    path = shared_data / "amazon2014" / "Musical_Instruments" / "Musical_Instruments_5.json.gz"
    main(["data-prep", "--reviews", str(path), "--task", "rating", "--output", str(tmp_path / "out")])
    manifest = read_manifest(tmp_path / "out", "dataset")
    assert manifest.extra["formats"] == ["amazon2014"]
    assert not manifest.extra["has_titles"]
    assert (manifest.counts["raw"], manifest.counts["users"], manifest.counts["items"]) == (10261, 1429, 900)


def test_sequences_with_positions_for_times_split_leave_one_out(shared_data, tmp_path):
    folder = shared_data / "amazon2018" / "Video_Games_sequences"
    flags = "--split leave_one_out --k-core 1 --title-filter none"
    data_prep(folder / "Video_Games.json.gz", folder / "meta_Video_Games.json.gz", tmp_path, flags)
    counts = read_manifest(tmp_path / "out", "dataset").counts
    assert (counts["interactions"], counts["users"], counts["items"]) == (440_264, 50_546, 16_859)
    assert counts["valid"] == counts["test"] == 50_546
