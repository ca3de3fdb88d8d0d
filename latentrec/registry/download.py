"""Models out of the registry: for users (``pull``), the evaluation (champion) and the next run (data)."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from latentrec.core import UserError
from latentrec.decoding import DecodingOptions
from latentrec.evaluation.evaluate_config import Champion
from latentrec.registry.model_registry import CHAMPION, RegisteredVersion, Registry
from latentrec.storage import MANIFEST, Manifest, check_output, read_manifest, replacing


def pull_model(uri: str, output: str | Path) -> RegisteredVersion:
    """Copy a registered model directory to ``output``, verified against its manifest; whole or not at all.

    Args:
        uri: ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
        output: directory to make; see :mod:`latentrec.storage.output` for what may be replaced.

    Raises:
        UserError: nothing is registered there, or what was copied is not what was registered.
    """
    target = check_output(output, kind="model")
    registry = Registry()
    model = registry.resolve(uri)
    with replacing(target, kind="model") as folder, tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        found = registry.download(model, "model", Path(scratch))
        manifest = read_manifest(found, "model")
        expected = model.tags.get("model.fingerprint", manifest.fingerprint)
        if manifest.fingerprint != expected:
            raise UserError(
                f"{uri}: the files are {manifest.fingerprint[:12]}, registered was {expected[:12]}",
                code="registry.changed_files",
            )
        for name in (MANIFEST, *manifest.files):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.rename(found / name, folder / name)
    return model


def find_champion(name: str) -> Champion | None:
    """The model that holds the alias now, with how it is served, or ``None``; its folder lives as long as
    this process.

    Args:
        name: registered name, or ``models:/NAME@ALIAS`` for another alias than ``champion``.
    """
    name, _, alias = name.removeprefix("models:/").partition("@")
    registry = Registry()
    found = registry.by_alias(name, alias or CHAMPION)
    if found is None:
        return None
    folder = tempfile.mkdtemp(prefix="latentrec-champion-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    directory = Path(folder) / "model"
    pull_model(found.uri, directory)
    options = DecodingOptions.from_config(registry.config(found))
    has_assistant = "assistant" in registry.artifacts(found)
    return Champion(
        directory,
        f"{name} v{found.version}",
        found.version,
        options,
        registry.download(found, "assistant", Path(folder)) if has_assistant else None,
    )


def previous_dataset_manifest(name: str) -> Manifest | None:
    """Manifest of the dataset behind the newest version that has one; ``None``: there is none.

    A scheduled run compares its data with this, promoted or not, and stops early when nothing is new.
    """
    registry = Registry()
    for version in reversed(registry.versions(name)):
        with tempfile.TemporaryDirectory() as folder:
            try:
                path = registry.download(version, "dataset_manifest", Path(folder))
            except UserError:
                continue
            target = Path(folder) / "dataset"
            target.mkdir()
            path.rename(target / "manifest.json")
            return read_manifest(target, "dataset", verify=False)
    return None
