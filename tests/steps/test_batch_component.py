"""The batch_score component: the same function that runs in the container, called in this process."""

from __future__ import annotations

from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from tests.fixtures.shop import decision


@pytest.fixture
def component():
    pytest.importorskip("kfp")
    from components.batch_score.component import batch_score

    return batch_score


def test_component_writes_every_users_list_to_the_artifact_and_to_the_second_place(
    register, component, shop, tmp_path, tracked
):
    import numpy as np
    import pandas as pd

    model = register(decision(), run_id="run-1").model
    n_users = pq.read_metadata(shop.dataset / "users.parquet").num_rows
    users = np.repeat(np.arange(n_users, dtype=np.int32), 3)
    events = pd.DataFrame({"user_id": users, "item_id": (users * 7) % 30})
    events.to_parquet(shop.dataset / "interactions.parquet")
    artifact = SimpleNamespace(path=str(tmp_path / "recommendations"), metadata={})
    count = component.python_func(
        SimpleNamespace(path=str(shop.dataset)),
        artifact,
        "models:/latentr3@champion",
        str(tmp_path / "bucket"),
        3,
        True,
    )
    table = pq.read_table(artifact.path)
    assert count == table.num_rows == n_users
    assert artifact.metadata["model"] == model.uri
    copied = pq.read_table(tmp_path / "bucket" / "recommendations.parquet")
    assert copied.equals(table)
    assert len(tracked.steps("batch_score")) == 1
