"""Everything of MLflow that is replaced, or private and used; it offers no public way to any of it.

Last run with mlflow 3.17.2 (``tests/test_dependencies.py`` fails when the locks hold another version).
Functions of the server's import MLflow's full package when called: the images that only log have its client.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

_SERVER_VARIABLE = "__pyfunc_model_path__"


def leave_folders_to_us() -> None:
    """MLflow makes the folder of an SQLite database by the text of its location, ``%3F`` and all."""
    from mlflow.store.db import utils

    utils._make_parent_dirs_if_sqlite = lambda db_uri: None


def database_tables() -> set[str]:
    """Names of the tables of a database of this MLflow; the only list is that of its models."""
    from mlflow.store.db import utils

    # The models register their tables when they are imported.
    from mlflow.store.model_registry.dbmodels import models as _  # noqa: F401
    from mlflow.store.tracking.dbmodels import models as __  # noqa: F401

    return set(utils.Base.metadata.tables)


def schema_revision() -> str:
    """The last migration of this MLflow; the public check raises and names no revision."""
    from mlflow.store.db import utils

    return utils._get_latest_schema_revision()


def upgrade_database(location: str) -> None:
    """Run the migrations that a database lacks; ``mlflow db upgrade`` is a command of the full package alone.

    Raises:
        Exception: of any kind, where they do not go through.
    """
    from mlflow.store.db import utils

    engine = utils.create_sqlalchemy_engine_with_retry(location)
    try:
        utils._upgrade_db(engine)
    finally:
        engine.dispose()


def is_scoring_server() -> bool:
    """Whether this process serves a model: MLflow's server gives its workers the model by this variable."""
    return _SERVER_VARIABLE in os.environ


def replace_scoring_handler(answer: Callable[..., Any], body: Callable[..., Any]) -> None:
    """Serve by handlers of ours: MLflow's server is made by MLflow's own command and takes none.

    Args:
        answer: in the place of the function behind ``/invocations``.
        body: reads the body of a request; MLflow's server reads it whole before any handler sees it.
    """
    from mlflow.pyfunc import scoring_server
    from starlette.requests import Request

    scoring_server.invocations = answer
    Request.body = body  # type: ignore[method-assign, assignment]
