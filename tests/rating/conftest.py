import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latentrec.data.dataset import Dataset
from latentrec.models.rating.standin import build_tokenizer
from latentrec.storage import ArtifactWriter
from latentrec.training.rating_config import PretrainRatingConfig

WORDS = [
    "red",
    "blue",
    "green",
    "small",
    "large",
    "soft",
    "hard",
    "bright",
    "paper",
    "steel",
    "wood",
    "glass",
]
NOUNS = ["pen", "mug", "lamp", "chair", "desk", "clock", "bag", "card"]


def write_rating_dataset(path, *, n_users=24, n_items=12, per_user=7, seed=0, n_held_out=2):
    """A dataset directory of the rating task: user and item quality show in the ratings.

    Each user's last ``n_held_out`` ratings are test and validation; the rest is the training period.
    """
    rng = np.random.default_rng(seed)
    user_bias, item_bias = rng.normal(0, 0.8, n_users), rng.normal(0, 0.8, n_items)
    columns = {name: [] for name in ("user_id", "item_id", "rating", "timestamp", "review_text", "summary")}
    splits = {name: [] for name in ("train", "valid", "test")}
    in_train = []
    for user in range(n_users):
        rows = []
        for position, item in enumerate(rng.permutation(n_items)[:per_user]):
            row = len(columns["user_id"])
            rating = float(np.clip(np.round(3.6 + user_bias[user] + item_bias[item]), 1, 5))
            for name, value in (
                ("user_id", user),
                ("item_id", int(item)),
                ("rating", rating),
                ("timestamp", 1_500_000_000 + 86_400 * position),
                ("review_text", None if position == 1 else f"review {row} says {rating:.0f} stars"),
                ("summary", f"summary {row}"),
            ):
                columns[name].append(value)
            held_out = position >= per_user - n_held_out
            in_train.append(not held_out)
            split = "train" if not held_out else ("test" if position == per_user - 1 else "valid")
            if rows:
                splits[split].append(
                    {
                        "user_id": user,
                        "history": [columns["item_id"][past] for past in rows],
                        "target": int(item),
                        "rating": rating,
                        "timestamp": columns["timestamp"][row],
                        "row": row,
                        "history_rows": list(rows),
                    }
                )
            rows.append(row)
    in_train = np.array(in_train)
    users, items = np.array(columns["user_id"]), np.array(columns["item_id"])
    ratings = np.array(columns["rating"])

    def means(ids, count):
        return [
            float(ratings[in_train & (ids == i)].mean()) if (in_train & (ids == i)).any() else None
            for i in range(count)
        ]

    with ArtifactWriter(path, "dataset", {"task": "rating", "seed": seed}) as writer:
        pq.write_table(
            pa.table(
                {
                    "item_id": pa.array(range(n_items), pa.int32()),
                    "item_key": [f"B{i:04d}" for i in range(n_items)],
                    "title": [f"{WORDS[i % 12]} {NOUNS[i % 8]} number {i}" for i in range(n_items)],
                    "title_id": pa.array(range(n_items), pa.int32()),
                    "train_count": pa.array(
                        [int((in_train & (items == i)).sum()) for i in range(n_items)], pa.int32()
                    ),
                    "train_mean_rating": pa.array(means(items, n_items), pa.float32()),
                }
            ),
            writer.path / "items.parquet",
        )
        pq.write_table(
            pa.table(
                {
                    "user_id": pa.array(range(n_users), pa.int32()),
                    "user_key": [f"U{i:04d}" for i in range(n_users)],
                    "train_mean_rating": pa.array(means(users, n_users), pa.float32()),
                }
            ),
            writer.path / "users.parquet",
        )
        pq.write_table(
            pa.table(
                {
                    "user_id": pa.array(columns["user_id"], pa.int32()),
                    "item_id": pa.array(columns["item_id"], pa.int32()),
                    "rating": pa.array(columns["rating"], pa.float32()),
                    "timestamp": pa.array(columns["timestamp"], pa.int64()),
                    "review_text": columns["review_text"],
                    "summary": columns["summary"],
                }
            ),
            writer.path / "interactions.parquet",
        )
        schema = pa.schema(
            [
                ("user_id", pa.int32()),
                ("history", pa.list_(pa.int32())),
                ("target", pa.int32()),
                ("rating", pa.float32()),
                ("timestamp", pa.int64()),
                ("row", pa.int64()),
                ("history_rows", pa.list_(pa.int64())),
            ]
        )
        for name, records in splits.items():
            pq.write_table(pa.Table.from_pylist(records, schema=schema), writer.path / f"{name}.parquet")
        writer.extra["has_titles"] = True
        writer.extra["train_mean_rating"] = float(ratings[in_train].mean())
        writer.extra["train_end"] = int(np.array(columns["timestamp"])[in_train].max())
    return path


@pytest.fixture(scope="session")
def rating_dataset(tmp_path_factory):
    return write_rating_dataset(tmp_path_factory.mktemp("rating") / "dataset")


@pytest.fixture(scope="session")
def dataset(rating_dataset):
    return Dataset(rating_dataset)


@pytest.fixture(scope="session")
def tokenizer(dataset):
    texts = [
        *dataset.titles,
        "Analyze the user, the item and their match, then rate from 1 to 5. Target mean",
    ]
    return build_tokenizer(texts * 4, vocabulary=400)


TINY = PretrainRatingConfig(
    steps=200,
    batch_size=16,
    learning_rate=1e-2,
    hidden_size=32,
    heads=2,
    layers=2,
    vocabulary=600,
    max_prompt_tokens=120,
    max_history=2,
    max_review_tokens=3,
    max_completion_tokens=48,
    measured_prompts=16,
    checkpoint_every=10,
    format_rate=0.95,
    reading_share=0.05,
)


@pytest.fixture(scope="session")
def tiny():
    """Settings of a stand-in that trains in a few seconds."""
    return TINY


@pytest.fixture(scope="session")
def base(rating_dataset, tmp_path_factory):
    """A stand-in, hardly trained."""
    from latentrec.training.rating_pretrain import pretrain_rating

    output = tmp_path_factory.mktemp("rating-base") / "model"
    pretrain_rating(TINY, dataset=rating_dataset, output=output)
    return output
