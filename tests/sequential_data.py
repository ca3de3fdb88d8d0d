"""A small dataset directory in which order carries information, made without the data room."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from latentrec.storage import ArtifactWriter

DAY = 86_400


def write_dataset(
    directory: Path,
    *,
    n_users: int = 60,
    n_items: int = 30,
    length: tuple[int, int] = (4, 12),
    max_history: int = 10,
    seed: int = 0,
    noise: float = 0.1,
) -> Path:
    """Leave-one-out; the item after i is i + 1 (mod n_items), save for a share of ``noise`` random ones."""
    generator = np.random.default_rng(seed)
    splits: dict[str, list[tuple]] = {"train": [], "valid": [], "test": []}
    counts = np.zeros(n_items, np.int32)
    for user in range(n_users):
        events = [int(generator.integers(n_items))]
        for _ in range(int(generator.integers(*length)) - 1):
            jump = generator.random() < noise
            events.append(int(generator.integers(n_items)) if jump else (events[-1] + 1) % n_items)
        np.add.at(counts, events[:-2], 1)
        for position in range(1, len(events)):
            left = len(events) - position
            split = "test" if left == 1 else "valid" if left == 2 else "train"
            history = events[max(0, position - max_history) : position]
            splits[split].append((user, history, events[position], 5.0, position * DAY))
    with ArtifactWriter(directory, "dataset", {"seed": seed, "n_users": n_users}) as artifact:
        keys = [f"B{item:04d}" for item in range(n_items)]
        items = pa.table(
            {
                "item_id": pa.array(range(n_items), pa.int32()),
                "item_key": keys,
                "title": [f"Title {key}" for key in keys],
                "title_id": pa.array(range(n_items), pa.int32()),
                "train_count": pa.array(counts),
            }
        )
        pq.write_table(items, artifact.path / "items.parquet")
        users = {
            "user_id": pa.array(range(n_users), pa.int32()),
            "user_key": [f"U{u}" for u in range(n_users)],
        }
        pq.write_table(pa.table(users), artifact.path / "users.parquet")
        for name, samples in splits.items():
            columns = list(zip(*samples, strict=True))
            table = pa.table(
                {
                    "user_id": pa.array(columns[0], pa.int32()),
                    "history": pa.array(columns[1], pa.list_(pa.int32())),
                    "target": pa.array(columns[2], pa.int32()),
                    "rating": pa.array(columns[3], pa.float32()),
                    "timestamp": pa.array(columns[4], pa.int64()),
                }
            )
            pq.write_table(table, artifact.path / f"{name}.parquet")
        artifact.extra = {"train_end": max(sample[4] for sample in splits["train"]), "has_titles": True}
    return directory
