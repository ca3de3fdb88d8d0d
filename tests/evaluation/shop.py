"""A small dataset directory and models with known behavior, for tests of the evaluation step."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file, save_file

from latentrec.catalog import Catalogue
from latentrec.models import ModelInfo, Ranking, read_model
from latentrec.storage import ArtifactWriter

N_ITEMS, N_USERS = 40, 120
TRAIN_END = 1_000_000
TITLES = [f'Item {i // 2 if i < 8 else i} <b>&amp; "co"</b>' for i in range(N_ITEMS)]


def write_dataset(output, seed=0, titles=TITLES, shift=0):
    """Users whose next item is their last item plus one, mostly; two test samples a user."""
    rng = np.random.default_rng(seed)
    counts = np.sort(rng.integers(1, 60, N_ITEMS))[::-1].copy()
    counts[-3:] = 0
    rows = {"user_id": [], "history": [], "target": [], "rating": [], "timestamp": []}
    for user in range(N_USERS):
        history = rng.integers(0, N_ITEMS, rng.integers(1, 11)).tolist()
        for step in range(2):
            target = (history[-1] + 1) % N_ITEMS if rng.random() < 0.7 else int(rng.integers(N_ITEMS))
            rows["user_id"].append(user)
            rows["history"].append(history[-10:])
            rows["target"].append(target)
            rows["rating"].append(5.0)
            rows["timestamp"].append(TRAIN_END + shift + user * 1000 + step)
            history = [*history, target]
    schema = pa.schema(
        [
            ("user_id", pa.int32()),
            ("history", pa.list_(pa.int32())),
            ("target", pa.int32()),
            ("rating", pa.float32()),
            ("timestamp", pa.int64()),
        ]
    )
    with ArtifactWriter(output, "dataset", {"task": "next_item", "seed": seed}) as writer:
        keys = [f"B{i:03d}" for i in range(N_ITEMS)]
        Catalogue.from_items(keys, titles, counts).write(writer.path / "items.parquet")
        users = pa.table(
            {"user_id": np.arange(N_USERS, dtype=np.int32), "user_key": [str(u) for u in range(N_USERS)]}
        )
        pq.write_table(users, writer.path / "users.parquet")
        for split in ("train", "valid", "test"):
            pq.write_table(pa.table(rows, schema=schema), writer.path / f"{split}.parquet")
        writer.extra = {"has_titles": True, "train_end": TRAIN_END}
    return output


class Oracle:
    """Knows that the next item is the last plus one, with a given skill; a test double for a real model."""

    def __init__(self, catalogue, skill, known, name):
        self.name, self._skill, self._catalogue = name, skill, catalogue
        self.unscorable = ~np.isin(np.arange(catalogue.n_items), known)

    def rank(self, histories, k, *, exclude=None):
        lists, scores = [], []
        for row, history in enumerate(histories):
            rng = np.random.default_rng([int(x) for x in history])
            order = rng.permutation(self._catalogue.n_items)
            if rng.random() < self._skill:
                best = (int(history[-1]) + 1) % self._catalogue.n_items
                order = np.concatenate([[best], order[order != best]])
            left_out = self.unscorable.nonzero()[0]
            if exclude is not None:
                left_out = np.concatenate([left_out, np.asarray(exclude[row])])
            order = order[~np.isin(order, left_out)][:k]
            lists.append(np.pad(order, (0, k - len(order)), constant_values=-1))
            scores.append(np.where(lists[-1] >= 0, -np.arange(k, dtype=float), -np.inf))
        return Ranking(np.array(lists, np.int32), np.array(scores, np.float32))


def write_model(
    output, *, skill, dataset_fingerprint, train_end=TRAIN_END, n_known=N_ITEMS, notes=(), system="oracle"
):
    with ArtifactWriter(output, "model", {"skill": skill}) as writer:
        ModelInfo(
            system=system,
            stage="test",
            config={},
            architecture={"n_known": n_known},
            metrics={},
            dataset_fingerprint=dataset_fingerprint,
            parent=None,
            train_end=train_end,
            notes=list(notes),
        ).write(writer.path)
        save_file({"skill": np.array([skill])}, writer.path / "model.safetensors")
    return output


def load_oracle(directory, catalogue, *, options, name, assistant_dir):
    """The loader of the system "oracle"."""
    info, _ = read_model(directory)
    skill = float(load_file(directory / "model.safetensors")["skill"][0])
    return Oracle(catalogue, skill, np.arange(info.architecture["n_known"]), name or "oracle")
