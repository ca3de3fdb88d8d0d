"""A runs folder that was moved or copied: models and reports are found, new ones go where it is now."""

import logging
import shutil
from pathlib import Path

import pytest

from latentrec.tracking.embedded_store import embedded_uri, open_client
from latentrec.tracking.run_context import artifact_location
from tests.errors import refused
from tests.fixtures.shop import decision


def log_run(client, experiment: str, text: str) -> str:
    run = client.create_run(experiment).info.run_id
    client.log_text(run, text, "notes.txt")
    return run


@pytest.mark.parametrize("how", [shutil.move, shutil.copytree])
def test_a_store_that_was_moved_finds_its_artifacts_and_writes_beside_itself(tmp_path, how, caplog):
    old, new = tmp_path / "runs", tmp_path / "moved here"
    uri = embedded_uri(old / "mlflow.db")
    client = open_client(uri)
    experiment = client.create_experiment("latentrec", artifact_location=artifact_location(uri))
    elsewhere = client.create_experiment("x", artifact_location=(tmp_path / "mlartifacts").as_uri())
    run, other = log_run(client, experiment, "old"), log_run(client, elsewhere, "elsewhere")
    client.create_registered_model("shop")
    client.create_model_version("shop", client.get_run(run).info.artifact_uri, run)

    how(old, new)
    with caplog.at_level(logging.WARNING):
        client = open_client(embedded_uri(new / "mlflow.db"))
    assert str(old) in caplog.text
    shutil.rmtree(old, ignore_errors=True)
    here = (new / "mlartifacts").as_uri()
    assert client.get_run(run).info.artifact_uri == f"{here}/{run}/artifacts"
    assert client.get_model_version_download_uri("shop", "1") == f"{here}/{run}/artifacts"
    assert client.get_model_version("shop", "1").source == f"{here}/{run}/artifacts"
    (tmp_path / "got").mkdir()
    got = client.download_artifacts(run, "notes.txt", str(tmp_path / "got"))
    assert Path(got).read_text() == "old"
    newer = log_run(client, experiment, "new")
    assert (new / "mlartifacts" / newer / "artifacts" / "notes.txt").is_file()
    assert not old.exists()
    assert (
        client.get_run(other).info.artifact_uri == f"{(tmp_path / 'mlartifacts').as_uri()}/{other}/artifacts"
    )
    caplog.clear()
    open_client(embedded_uri(new / "mlflow.db"))
    assert caplog.text == ""


def test_a_database_that_was_moved_without_its_artifacts_is_left_alone(tmp_path):
    uri = embedded_uri(tmp_path / "runs" / "mlflow.db")
    client = open_client(uri)
    run = log_run(client, client.create_experiment("x", artifact_location=artifact_location(uri)), "old")
    (tmp_path / "other").mkdir()
    shutil.move(tmp_path / "runs" / "mlflow.db", tmp_path / "other" / "mlflow.db")
    client = open_client(embedded_uri(tmp_path / "other" / "mlflow.db"))
    got = client.download_artifacts(run, "notes.txt", str(tmp_path))
    assert Path(got).read_text() == "old"


def test_a_model_whose_files_are_gone_says_where_they_are_looked_for(register, tracked):
    from latentrec.registry.download import pull_model
    from latentrec.steps.recommend import recommend

    model = register(decision()).model
    place = tracked.client.get_model_version_download_uri(model.name, model.version)
    shutil.rmtree(place.removeprefix("file://"))
    with refused("registry.unreadable", "models:/latentr3/1", place):
        recommend(model.uri, ["B0003"])
    with refused("registry.unreadable", "models:/latentr3/1", place):
        pull_model(model.uri, tracked.root / "pulled")
