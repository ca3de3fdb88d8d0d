"""The generated sample: same bytes for a seed, order that carries information, the dirt of real files."""

import hashlib
import json
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from latentrec.data import Dataset, generate_sample
from tests.errors import refused


def digest(paths):
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def test_bytes_are_the_same_in_another_process(tmp_path):
    here = digest(generate_sample(tmp_path / "a", seed=7, users=30))
    code = (
        "import sys; from latentrec.data import generate_sample;"
        "generate_sample(sys.argv[1], seed=7, users=30)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "b")], check=True, env={"PYTHONHASHSEED": "1"})
    assert digest([tmp_path / "b" / "reviews.json", tmp_path / "b" / "meta.json"]) == here


def test_another_seed_gives_other_reviews(tmp_path):
    first = digest(generate_sample(tmp_path / "a", seed=1, users=20))
    second = digest(generate_sample(tmp_path / "b", seed=2, users=20))
    assert first[0] != second[0]


@pytest.mark.parametrize("name", ["users", "items", "events_per_user"])
def test_sizes_must_be_positive(tmp_path, name):
    with refused("config.bad_value", name, "0"):
        generate_sample(tmp_path, **{name: 0})


def test_dirt_of_real_files_is_planted(sample_reviews):
    reviews, metadata = ([json.loads(line) for line in path.open()] for path in sample_reviews)
    titles = Counter(row.get("title") for row in metadata)
    assert any(count > 1 for title, count in titles.items() if title and "<" not in title), "no shared title"
    assert any("<span" in (title or "") for title in titles), "no HTML"
    assert any("&amp;" in (title or "") for title in titles), "no entity"
    assert any(len((title or "").split()) > 20 for title in titles), "no long title"
    assert titles[None] > 0, "no missing title"
    assert {row["asin"] for row in reviews} - {row["asin"] for row in metadata}, "no missing metadata row"
    events = Counter((row["reviewerID"], row["asin"], row["unixReviewTime"]) for row in reviews)
    assert max(events.values()) > 1, "no exact duplicate"
    days = Counter((row["reviewerID"], row["unixReviewTime"]) for row in reviews)
    assert sum(count > 1 for count in days.values()) > 100, "no ties"
    assert min(Counter(row["reviewerID"] for row in reviews).values()) < 5, "nobody below the 5-core"
    assert any("reviewText" not in row for row in reviews), "no review without text"
    assert all(row["unixReviewTime"] % 86_400 == 0 for row in reviews)


def test_the_item_before_predicts_far_better_than_popularity(sample_dataset):
    dataset = Dataset(sample_dataset)
    follows = defaultdict(Counter)
    train = dataset.split("train")
    for index in range(len(train)):
        follows[train.history(index)[-1]][train.targets[index]] += 1
    popular = list(np.argsort(-dataset.train_counts, kind="stable")[:10])
    test = dataset.split("test")
    assert len(test) >= 1500

    def ndcg(ranking, target):
        return 1 / np.log2(ranking.index(target) + 2) if target in ranking else 0.0

    by_popularity = np.array([ndcg(popular, target) for target in test.targets])
    by_last_item = np.array(
        [
            ndcg([item for item, _ in follows[test.history(index)[-1]].most_common(10)], test.targets[index])
            for index in range(len(test))
        ]
    )
    error = 1.96 * by_last_item.std() / np.sqrt(len(test))
    assert by_last_item.mean() - error > 5 * by_popularity.mean()


def test_a_sample_that_others_read_is_left_as_it_is(tmp_path):
    first = generate_sample(tmp_path / "shop", seed=7, users=20)[0]
    inode = first.stat().st_ino
    assert generate_sample(tmp_path / "shop", seed=7, users=20)[0].stat().st_ino == inode
    assert generate_sample(tmp_path / "shop", seed=8, users=20)[0].stat().st_ino != inode


def test_samples_of_two_seeds_are_two_folders(tmp_path):
    from argparse import Namespace

    from pipeline.local_runner import RunFolders
    from pipeline.run_local import _inputs

    nothing = Namespace(category="", category_year="", reviews="", metadata="")
    made = [_inputs(nothing, RunFolders(tmp_path), {"seed": seed})["customer_reviews"] for seed in (42, 43)]
    assert made[0] != made[1]
    assert digest(map(Path, made[:1])) != digest(map(Path, made[1:]))
