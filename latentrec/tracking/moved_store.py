"""An embedded MLflow store whose folder was moved: its artifacts are beside it, whatever it says.

MLflow stores whole paths. After ``mv runs elsewhere`` a registered model would be looked for at the old
place, and new figures would be written there. The default experiment, made with the store, tells where it
stood; locations below that folder's artifacts are turned into those of the folder where it stands now.
Locations elsewhere (a bucket, another disk) stay.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

ARTIFACTS = "mlartifacts"
"""Folder of the artifacts, beside the database."""
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def artifact_root(path: Path) -> str:
    """Where a database at ``path`` keeps its artifacts."""
    return (path.parent / ARTIFACTS).as_uri()


def former_root(connection: sqlite3.Connection, path: Path) -> str | None:
    """Where the artifacts stood when the store was made; ``None``: where they are now, or unknown."""
    found = connection.execute("SELECT artifact_location FROM experiments WHERE experiment_id = 0").fetchone()
    root, _, number = str(found[0]).rpartition("/") if found else ("", "", "")
    if number != "0" or not root.startswith("file://") or not root.endswith(f"/{ARTIFACTS}"):
        return None
    moved = root != artifact_root(path) and (path.parent / ARTIFACTS).is_dir()
    return root if moved else None


def relocate(path: Path) -> str | None:
    """Turn the locations of a store that was moved into those of its own folder; returns the former root."""
    with closing(sqlite3.connect(path, timeout=20, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        root = former_root(connection, path)
        if root is None:
            connection.execute("ROLLBACK")
            return None
        for table, column in _LOCATIONS:
            connection.execute(
                f"UPDATE {table} SET {column} = :new || substr({column}, length(:old) + 1) "
                f"WHERE {column} = :old OR substr({column}, 1, length(:old) + 1) = :old || '/'",
                {"old": root, "new": artifact_root(path)},
            )
        connection.execute("COMMIT")
    return root
