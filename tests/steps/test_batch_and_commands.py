"""What a user types: register, promote, pull, recommend, batch-score; and the newer catalogue."""

from __future__ import annotations

import json
import threading
import time

import mlflow
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from latentrec.catalog import Catalogue
from latentrec.cli import main
from latentrec.models import Ranking
from latentrec.serving.recommendation_service import RecommendationService, ServingModel
from latentrec.serving.request_schemas import Parameters, RecommendationRow
from latentrec.steps.batch_scoring import batch_score
from tests.errors import refused
from tests.fixtures.shop import decision, write_evaluation


@pytest.fixture
def champion(register):
    return register(decision()).model


def served(history, uri="models:/latentr3@champion", **params):
    model = mlflow.pyfunc.load_model(uri)
    return model.predict(pd.DataFrame({"history": history}), params=params)


def test_batch_gives_each_user_what_one_request_gives(champion, tmp_path):
    histories = {"u1": ["B0003", "B0004"], "u2": [], "u3": ["nope", "B0009"]}
    users = tmp_path / "users.jsonl"
    users.write_text("".join(json.dumps({"user_key": u, "history": h}) + "\n" for u, h in histories.items()))
    result = batch_score(
        model="models:/latentr3@champion", users=str(users), output=str(tmp_path / "out"), k=5
    )
    table = pq.read_table(result.uri)
    single = served(list(histories.values()), k=5)
    assert table["user_key"].to_pylist() == list(histories)
    assert table["item_keys"].to_pylist() == single["item_keys"].tolist()
    assert table["unknown_items"].to_pylist() == [0, 0, 1]
    assert table["fallback"].to_pylist() == [False, True, False]
    assert table.schema.metadata[b"latentrec.model"] == champion.uri.encode()
    assert (result.users, result.fallbacks) == (3, 1)


def test_batch_reads_parquet_and_a_dataset_directory(champion, shop, tmp_path, monkeypatch):
    frame = pd.DataFrame({"user_key": ["u1"], "history": [["B0003"]]})
    frame.to_parquet(tmp_path / "users.parquet")
    output = str(tmp_path / "one.parquet")
    assert batch_score(model=champion.uri, users=str(tmp_path / "users.parquet"), output=output).users == 1
    write_interactions(shop.dataset)
    result = batch_score(model=champion.uri, users=str(shop.dataset), output=str(tmp_path), batch_size=16)
    table = pq.read_table(result.uri)
    assert result.users == table.num_rows == pq.read_metadata(shop.dataset / "users.parquet").num_rows
    assert all(len(keys) == 10 for keys in table["item_keys"].to_pylist())


def write_interactions(dataset):
    if not (dataset / "interactions.parquet").exists():
        n_users = pq.read_metadata(dataset / "users.parquet").num_rows
        users = np.repeat(np.arange(n_users, dtype=np.int32), 3)
        pd.DataFrame({"user_id": users, "item_id": (users * 7) % 30}).to_parquet(
            dataset / "interactions.parquet"
        )


@pytest.mark.parametrize(
    ("content", "code", "named"),
    [
        (
            '{"user_key": "u1", "history": ["B0003"]}\n{"user": 1}\n',
            "users.bad_row",
            ("line 2", "user_key", "history"),
        ),
        ("not json\n", "users.bad_row", ("line 1", "user_key", "history")),
        ('{"user_key": "u1", "history": [3]}\n', "users.bad_row", ("after user 0", "row 0.history", "3")),
        ("", "users.empty", ()),
    ],
)
def test_bad_users_are_named_and_nothing_is_written(champion, tmp_path, content, code, named):
    users = tmp_path / "users.jsonl"
    users.write_text(content)
    with refused(code, "users.jsonl", *named):
        batch_score(model=champion.uri, users=str(users), output=str(tmp_path / "out.parquet"))
    assert not (tmp_path / "out.parquet").exists()


def test_commands_from_registration_to_recommendation(tracked, shop, tmp_path, capsys):
    evaluation = write_evaluation(tmp_path / "evaluation", shop.sasrec, decision())
    main(["register", "--model", str(shop.sasrec), "--evaluation", str(evaluation), "--name", "latentr3"])
    assert "registered: models:/latentr3/1" in capsys.readouterr().out
    (run,) = tracked.steps("register")
    assert run.data.tags["registered"] == "models:/latentr3/1"
    main(["recommend", "--model", "models:/latentr3@champion", "--history", "B0003,nope", "--k", "3"])
    shown = capsys.readouterr().out
    assert shown.startswith("latentr3 version 1, after 2 items")
    assert len([line for line in shown.splitlines() if " Title B" in line]) == 3
    assert "\n1 of the items" in shown
    main(["recommend", "--model", "models:/latentr3@champion"])
    assert "popularity" in capsys.readouterr().out
    main(["pull", "--model", "models:/latentr3/1", "--output", str(tmp_path / "pulled")])
    assert "model.system" in capsys.readouterr().out
    main(["promote", "--name", "latentr3", "--history"])
    assert "promoted    champion → version 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["recommend", "--model", "models:/latentr3@champion"], "registry.not_found", "latentr3@champion"),
        (["recommend", "--model", "latentr3"], "registry.bad_uri", "models:/NAME@ALIAS"),
        (["recommend", "--model", "models:/x@champion", "--k", "0"], "config.bad_value", "params.k is 0"),
        (["pull", "--model", "models:/latentr3/3", "--output", "x"], "registry.unknown_version", "3"),
        (["promote", "--name", "latentr3", "--version", "1"], "config.missing_value", "--reason"),
        (["promote", "--name", "latentr3", "--history"], "registry.not_found", "'latentr3'"),
        (
            ["batch-score", "--model", "m", "--users", "u", "--output", "o", "--k", "999"],
            "config.bad_value",
            "999",
        ),
    ],
)
def test_wrong_commands_exit_2_with_the_reason(tracked, refused_command, arguments, code, named):
    refused_command(arguments, code, named)


def test_without_a_champion_the_error_points_to_the_challenger(register, refused_command):
    register(decision(promote=False, reason="refused: popularity wins"))
    command = ["recommend", "--model", "models:/latentr3@champion"]
    refused_command(command, "registry.no_champion", "models:/latentr3@challenger")


def test_recommend_without_a_model_asks_what_the_newest_run_registered(register, capsys):
    """The champion of the newest version's name; without a champion the version itself."""
    register(decision(), name="older-shop")
    register(decision(promote=False, reason="worse"), name="newer-shop")
    main(["recommend", "--history", "B0003", "--candidates", "B0007,B0008,B0009", "--exclude-items", "B0008"])
    shown = capsys.readouterr().out
    assert "newer-shop version 1" in shown
    assert "B0007" in shown
    assert "B0008" not in shown
    register(decision(), name="newer-shop")
    main(["recommend", "--history", "B0003"])
    assert "newer-shop version 2" in capsys.readouterr().out


def newer_catalogue(shop, path, extra=("B9001",)):
    old = Catalogue.read(shop.dataset / "items.parquet")
    keys, titles = [*extra, *old.item_keys[::-1]], [*(f"New {k}" for k in extra), *old.titles[::-1]]
    counts = np.concatenate([np.full(len(extra), 10_000), old.train_counts[::-1]])
    Catalogue.from_items(keys, titles, counts).write(path)
    return path


def test_a_newer_catalogue_is_served_without_retraining(champion, shop, tmp_path):
    path = newer_catalogue(shop, tmp_path / "items.parquet")
    model = mlflow.pyfunc.load_model(champion.uri, model_config={"catalogue": str(path)})
    newer = model.predict(pd.DataFrame({"history": [["B0003", "B0004"], ["B9001"], []]}), params={"k": 5})
    older = served([["B0003", "B0004"], ["B9001"]], uri=champion.uri, k=5)
    assert newer["item_keys"][0] == older["item_keys"][0]
    assert newer["unknown_items"].tolist() == [0, 0, 0]
    assert older["unknown_items"].tolist() == [0, 1]
    assert newer["titles"][2][0] == "New B9001"


def test_a_catalogue_that_changes_is_taken_up_while_serving(champion, shop, tmp_path, monkeypatch):
    path = newer_catalogue(shop, tmp_path / "items.parquet")
    monkeypatch.setenv("LATENTREC_CATALOGUE", str(path))
    monkeypatch.setenv("LATENTREC_CATALOGUE_REFRESH_SECONDS", "0.1")
    model = mlflow.pyfunc.load_model(champion.uri)
    empty = pd.DataFrame({"history": [[]]})
    assert model.predict(empty)["item_keys"][0][0] == "B9001"
    path.write_bytes(b"not parquet")
    time.sleep(0.4)
    assert model.predict(empty)["item_keys"][0][0] == "B9001"
    newer_catalogue(shop, path, extra=("B9002", "B9003"))
    for _ in range(100):
        if model.predict(empty)["item_keys"][0][0] == "B9002":
            return
        time.sleep(0.1)
    pytest.fail("the new catalogue was not taken up")


class OneAtATime:
    """A recommender that is not thread-safe, and says so; its answer depends on the history alone."""

    name = "one at a time"

    def __init__(self, n_items):
        self.unscorable = np.zeros(n_items, bool)
        self.running, self.overlaps, self.batches = 0, 0, []
        self._n_items = n_items

    def rank(self, histories, k, *, exclude=None):
        self.running += 1
        self.overlaps += self.running > 1
        time.sleep(0.002)
        self.batches.append(len(histories))
        first = np.array([[(h[-1] + 1 + i) % self._n_items for i in range(k)] for h in histories], np.int32)
        self.running -= 1
        return Ranking(first, -np.arange(k, dtype=np.float32)[None].repeat(len(histories), 0))


def test_concurrent_callers_share_batches_and_never_run_the_model_at_once():
    catalogue = Catalogue.from_items([f"B{i}" for i in range(40)], [f"T{i}" for i in range(40)])
    model = OneAtATime(40)
    service = RecommendationService(ServingModel.of(model, catalogue))
    wrong = []

    def client(number):
        for step in range(20):  # neighbors ask for the same k, as only such share a batch
            item = (number * 3 + step) % 40
            (answer,) = service.recommend([RecommendationRow([f"B{item}"])], Parameters(k=1 + number // 7))
            if answer.item_keys[0] != f"B{(item + 1) % 40}" or len(answer.item_keys) != 1 + number // 7:
                wrong.append((number, step))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert model.overlaps == 0
    assert max(model.batches) > 1


def test_a_model_that_fails_answers_its_callers_with_the_error_and_lives_on():
    catalogue = Catalogue.from_items(["B0", "B1"], ["T0", "T1"])
    model = OneAtATime(2)
    service = RecommendationService(ServingModel.of(model, catalogue))
    rank, model.rank = model.rank, lambda *_, **__: (_ for _ in ()).throw(RuntimeError("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        service.recommend([RecommendationRow(["B0"])], Parameters(k=1))
    model.rank = rank
    assert service.recommend([RecommendationRow(["B0"])], Parameters(k=1))[0].item_keys == ["B1"]


def test_warm_up_has_run_the_model_before_the_first_request():
    catalogue = Catalogue.from_items(["B0", "B1"], ["T0", "T1"])
    model = OneAtATime(2)
    RecommendationService(ServingModel.of(model, catalogue))
    assert model.batches
