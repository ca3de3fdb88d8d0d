"""A served model's catalogue may be newer than the model: where it comes from, and noticing a change."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from latentrec.catalog import ITEMS_FILE
from latentrec.core.settings import CATALOGUE_REFRESH_SECONDS_VARIABLE
from latentrec.storage import store_for

_logger = logging.getLogger(__name__)


class CatalogueSource:
    """A catalogue at a location outside the model: a path or ``gs://…/items.parquet``.

    Args:
        uri: where it stands.
    """

    def __init__(self, uri: str):
        self.uri = uri
        self.version: str | None = None

    def fetch(self, folder: Path) -> Path:
        """Copy the catalogue into ``folder`` and remember its version.

        Raises:
            FileNotFoundError: nothing stands there.
        """
        store = store_for(self.uri)
        info = store.stat(self.uri)
        if info is None:
            raise FileNotFoundError(f"{self.uri}: no catalogue there")
        path = folder / ITEMS_FILE
        store.download_file(self.uri, path)
        self.version = info.version
        return path

    def changed(self) -> bool:
        """Whether another catalogue stands there now."""
        info = store_for(self.uri).stat(self.uri)
        return info is not None and info.version != self.version


def watch(source: CatalogueSource, reload: Callable[[Path], None]) -> threading.Thread | None:
    """Check for a new catalogue at intervals and pass it to ``reload``; a bad one is reported and skipped.

    ``LATENTREC_CATALOGUE_REFRESH_SECONDS`` (60) sets the interval; 0 turns it off.
    """
    seconds = float(os.environ.get(CATALOGUE_REFRESH_SECONDS_VARIABLE) or 60)
    if seconds <= 0:
        return None

    def run() -> None:
        while True:
            time.sleep(seconds)
            try:
                if source.changed():
                    with tempfile.TemporaryDirectory() as folder:
                        reload(source.fetch(Path(folder)))
                    _logger.info("catalogue reloaded from %s", source.uri)
            except Exception as error:
                _logger.warning(
                    "catalogue %s could not be reloaded, the old one stays (%s)", source.uri, error
                )

    thread = threading.Thread(target=run, name="catalogue-watch", daemon=True)
    thread.start()
    return thread
