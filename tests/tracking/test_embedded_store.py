"""The embedded MLflow database: whole whoever starts at once, and repaired where a start was cut off."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

from latentrec.tracking.embedded_store import (
    embedded_path,
    embedded_uri,
    open_client,
    prepare_embedded_store,
)
from latentrec.tracking.run_context import artifact_location
from tests.errors import refused

STARTS = """
import os, sys
from latentrec.tracking.embedded_store import open_client
import mlflow.store.tracking.sqlalchemy_store, mlflow.store.model_registry.sqlalchemy_store
def start(uri, name):
    client = open_client(uri)
    client.create_experiment(name)
    run = client.create_run("0")
    client.log_param(run.info.run_id, "name", name)
for number in range(int(sys.argv[2])):
    children = []
    for name in ("a", "b"):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                start(f"sqlite:///{sys.argv[1]}/{number}/mlflow.db", name)
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0, number
"""


def two_first_starts_at_once(folder, times: int) -> None:
    subprocess.run([sys.executable, "-c", STARTS, str(folder), str(times)], check=True)
    for number in range(times):
        client = open_client(f"sqlite:///{folder}/{number}/mlflow.db")
        assert {experiment.name for experiment in client.search_experiments()} == {"Default", "a", "b"}
        assert len(client.search_runs(["0"])) == 2
        assert sorted(os.listdir(folder / str(number))) == [".mlflow.db.lock", "mlflow.db"]


def test_two_first_starts_at_once_share_one_sound_database(tmp_path):
    two_first_starts_at_once(tmp_path, 2)


@pytest.mark.slow
def test_two_first_starts_at_once_twenty_times(tmp_path):
    two_first_starts_at_once(tmp_path, 20)


@pytest.mark.parametrize("after", [0.0, 0.15, 0.4])
def test_killed_first_start_leaves_nothing_that_a_second_minds(tmp_path, after):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    program = (
        "import sys; from latentrec.tracking.embedded_store import open_client\n"
        "import mlflow.store.tracking.sqlalchemy_store\n"
        "print('ready', flush=True); open_client(sys.argv[1])"
    )
    child = subprocess.Popen([sys.executable, "-c", program, uri], stdout=subprocess.PIPE)
    child.stdout.readline()
    time.sleep(after)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert [experiment.name for experiment in open_client(uri).search_experiments()] == ["Default"]
    assert not list(tmp_path.glob(".mlflow.db.making*"))


def cut_off(path) -> None:
    """As a migration that was killed leaves it: a table is missing, and the schema's number is an old one."""
    from mlflow.store.db import utils

    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE model_versions")
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
        connection.commit()
    engine = utils.create_sqlalchemy_engine_with_retry(f"sqlite:///{path}")
    with pytest.raises(Exception, match=r"already exists|duplicate column"):
        utils._initialize_tables(engine)
    engine.dispose()


def test_database_cut_off_while_it_was_made_is_made_again(tmp_path, empty_store):
    path = tmp_path / "mlflow.db"
    path.write_bytes(empty_store.read_bytes())
    cut_off(path)
    client = open_client(f"sqlite:///{path}")
    client.create_registered_model("x")
    assert len(list(tmp_path.glob("mlflow.db.before-*"))) == 1


def test_damaged_database_that_holds_runs_is_left_alone(tmp_path, empty_store):
    path = tmp_path / "mlflow.db"
    path.write_bytes(empty_store.read_bytes())
    open_client(f"sqlite:///{path}").create_run("0")
    cut_off(path)
    before = path.read_bytes()
    os.utime(path, (1, 1))
    from latentrec.tracking import embedded_store

    embedded_store._sound.clear()
    with refused("tracking.broken_upgrade", "1"):
        prepare_embedded_store(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_database_of_an_earlier_schema_is_upgraded_on_a_copy(tmp_path):
    from alembic import command
    from mlflow.store.db import utils
    from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase

    path = tmp_path / "mlflow.db"
    engine = utils.create_sqlalchemy_engine_with_retry(f"sqlite:///{path}")
    InitialBase.metadata.create_all(engine)
    config = utils._get_alembic_config(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "451aebb31d03")
    engine.dispose()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage) "
            "VALUES (0, 'Default', '/x', 'active')"
        )
        connection.commit()
    client = open_client(f"sqlite:///{path}")
    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]
    assert len(list(tmp_path.glob("mlflow.db.before-*"))) == 1


def test_a_file_that_is_no_database_is_left_alone(tmp_path):
    (tmp_path / "mlflow.db").write_text("my notes " * 100)
    with refused("tracking.unreadable"):
        open_client(f"sqlite:///{tmp_path}/mlflow.db")
    assert (tmp_path / "mlflow.db").read_text() == "my notes " * 100


def test_read_only_folder_is_one_clear_line(tmp_path):
    (tmp_path / "file").touch()
    with refused("tracking.not_writable", "RUNS_DIR"):
        open_client(f"sqlite:///{tmp_path}/file/mlflow.db")


def test_servers_and_memory_are_not_touched(tmp_path):
    assert embedded_path("http://127.0.0.1:5000") is None
    assert embedded_path("sqlite:///:memory:") is None
    assert embedded_path(f"sqlite:///{tmp_path}/m.db?timeout=5") == tmp_path / "m.db"


@pytest.mark.parametrize("name", ["my runs", "a?b", "100% #1", "a%41+&;'é"])
def test_folder_of_any_name_holds_the_store_its_models_and_nothing_beside_it(tmp_path, name):
    from mlflow.tracking import MlflowClient

    folder = tmp_path / name
    uri = embedded_uri(folder / "mlflow.db")
    assert embedded_path(uri) == folder / "mlflow.db"
    client = open_client(uri)
    experiment = client.create_experiment("x", artifact_location=artifact_location(uri))
    run = client.create_run(experiment).info.run_id
    client.log_text(run, "hello", "notes.txt")
    again = MlflowClient(uri)
    assert [entry.path for entry in again.list_artifacts(run)] == ["notes.txt"]
    assert os.listdir(tmp_path) == [name]
    assert sorted(os.listdir(folder)) == [".mlflow.db.lock", "mlartifacts", "mlflow.db"]
