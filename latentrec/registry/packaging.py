"""A model directory as an MLflow model that needs nothing of this machine: code, weights, catalogue, pins."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import latentrec
from latentrec.catalog import ITEMS_FILE, Catalogue
from latentrec.core import UserError
from latentrec.decoding import DecodingOptions
from latentrec.models import ModelInfo
from latentrec.serving.request_schemas import DEFAULT_K, RATING_SYSTEMS

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

_EVERY = ("mlflow", "numpy", "pandas", "pyarrow", "tqdm")
_TORCH = ("torch", "safetensors")
_TEXT = ("transformers", "tokenizers")
_NEEDS: dict[str, tuple[str, ...]] = {
    "popularity": _TORCH,
    "sasrec": _TORCH,
    "gru4rec": _TORCH,
    "caser": _TORCH,
    "lares": _TORCH,
}
_ARCHIVE_SUFFIXES = frozenset({".pkl", ".pickle", ".pt", ".pth", ".bin", ".npy", ".npz", ".joblib"})


@dataclass(frozen=True)
class Package:
    """What goes into the served model.

    Attributes:
        info: of the model directory.
        model_dir: it.
        catalogue: ``items.parquet`` that it serves.
        dataset_manifest: of the dataset that it was trained on, where known.
        assistant_dir: for d3 decoding: the assistant's model directory.
        baseline_dir: model directory of a baseline to compare with; kept, not served.
        options: how it was evaluated, and so how it is served.
        name: that it is registered under.
        card: the whole model card, Markdown.
        metadata: lineage, readable without loading the model.
    """

    info: ModelInfo
    model_dir: Path
    catalogue: Path
    card: str
    dataset_manifest: Path | None = None
    assistant_dir: Path | None = None
    baseline_dir: Path | None = None
    options: DecodingOptions = field(default_factory=DecodingOptions)
    name: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


def log_served_model(package: Package, run_id: str, workspace: Path) -> str:
    """Log the package as a pyfunc under a run; returns its ``models:/m-…`` location.

    Args:
        package: what to log.
        run_id: MLflow run that it belongs to.
        workspace: empty folder for intermediate files.
    """
    import mlflow

    artifacts = {"model": package.model_dir, "catalogue": package.catalogue}
    card = workspace / "model_card.md"
    card.write_text(package.card, encoding="utf-8")
    artifacts["card"] = card
    if package.dataset_manifest is not None:
        artifacts["dataset_manifest"] = package.dataset_manifest
    if package.assistant_dir is not None:
        artifacts["assistant"] = package.assistant_dir
    if package.baseline_dir is not None:
        artifacts["baseline"] = package.baseline_dir
    for path in (package.model_dir, package.assistant_dir, package.baseline_dir):
        _refuse_pickles(path)
    staged = _stage_under_their_names(artifacts, workspace / "artifacts")
    with _no_compiled_modules(), mlflow.start_run(run_id=run_id, log_system_metrics=False):
        logged = mlflow.pyfunc.log_model(
            name=package.info.system,
            python_model=str(Path(latentrec.__file__).parent / "serving" / "pyfunc_model.py"),
            artifacts={name: str(path) for name, path in staged.items()},
            code_paths=[str(_stage_code(workspace))],
            pip_requirements=requirements_of(package.info.system),
            signature=signature_of(package.info.system, package.options),
            input_example=input_example(
                package.info.system, Catalogue.read(package.catalogue), package.options
            ),
            metadata=package.metadata,
            model_config={
                "catalogue": "",
                "registered_name": package.name,
                **package.options.to_config(),
            },
        )
    return logged.model_uri


def requirements_of(system: str) -> list[str]:
    """The packages that serving this system needs, pinned to the versions that run here."""
    wanted = [*_EVERY, *_NEEDS.get(system, (*_TORCH, *_TEXT))]
    return [f"{name}=={metadata.version(name).split('+')[0]}" for name in wanted]


def signature_of(system: str, options: DecodingOptions | None = None) -> ModelSignature:
    """Columns and parameters.

    Lists are of any type for MLflow, because its own conversion refuses whole numbers among ratings and cuts
    every key to one letter where one is null; the model checks them itself and says what is wrong.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType, Array

    options = options or DecodingOptions()
    given, texts, numbers = Array(AnyType()), Array(DataType.string), Array(DataType.double)
    history = ColSpec(given, "history")
    titles = ColSpec(given, "history_titles", required=False)
    origin = [ColSpec(DataType.string, "model"), ColSpec(DataType.string, "version")]
    if system in RATING_SYSTEMS:
        return ModelSignature(
            inputs=Schema(
                [history, titles, ColSpec(given, "history_ratings"), ColSpec(DataType.string, "target")]
            ),
            outputs=Schema(
                [ColSpec(DataType.double, "rating"), ColSpec(DataType.string, "reasoning"), *origin]
            ),
        )
    optional = [ColSpec(given, name, required=False) for name in ("candidates", "exclude_items")]
    return ModelSignature(
        inputs=Schema([history, titles, *optional]),
        outputs=Schema(
            [
                ColSpec(texts, "item_keys"),
                ColSpec(texts, "titles"),
                ColSpec(numbers, "scores"),
                ColSpec(DataType.long, "unknown_items"),
                ColSpec(DataType.boolean, "fallback"),
                *origin,
            ]
        ),
        params=ParamSchema(
            [
                ParamSpec("k", DataType.long, DEFAULT_K),
                ParamSpec("exclude_history", DataType.boolean, options.exclude_history),
            ]
        ),
    )


def input_example(system: str, catalogue: Catalogue, options: DecodingOptions | None = None) -> Any:
    """One request on the catalogue's most bought items, with the parameters' defaults."""
    import pandas as pd

    popular = sorted(range(catalogue.n_items), key=lambda item: -catalogue.train_counts[item])[:3]
    keys = [catalogue.item_keys[item] for item in popular]
    titles = [catalogue.titles[item] for item in popular]
    row: dict[str, Any] = {"history": [keys], "history_titles": [titles]}
    if system in RATING_SYSTEMS:
        ratings = {"history_ratings": [[4.0] * len(keys)], "target": [keys[0]]}
        return pd.DataFrame({**row, **ratings})
    exclude = (options or DecodingOptions()).exclude_history
    return pd.DataFrame(row), {"k": DEFAULT_K, "exclude_history": exclude}


def catalogue_of(model_dir: Path, given: str | Path | None) -> Path:
    """The catalogue to serve: the one given, else the model's own.

    Raises:
        UserError: there is none.
    """
    path = Path(given) if given else model_dir / ITEMS_FILE
    if not path.is_file():
        raise UserError(
            f"{path} is not there; a served model needs its catalogue (--catalogue items.parquet)",
            code="registry.no_catalogue",
        )
    return path


@contextmanager
def _no_compiled_modules() -> Iterator[None]:
    """MLflow runs the code that it stores, before it uploads it; compiled files must not be uploaded."""
    before, variable = sys.dont_write_bytecode, os.environ.get("PYTHONDONTWRITEBYTECODE")
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
        if variable is None:
            del os.environ["PYTHONDONTWRITEBYTECODE"]
        else:
            os.environ["PYTHONDONTWRITEBYTECODE"] = variable


def _stage_code(workspace: Path) -> Path:
    """A copy of this package without caches, to be stored with the model."""
    source = Path(latentrec.__file__).parent
    target = workspace / "code" / "latentrec"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    return target


def _stage_under_their_names(artifacts: dict[str, Path], folder: Path) -> dict[str, Path]:
    """Copy artifacts to distinct file names, since MLflow stores an artifact under its file's name."""
    folder.mkdir(parents=True)
    staged = {}
    for name, path in artifacts.items():
        target = folder / (name if path.is_dir() else f"{name}{path.suffix}")
        if path.is_dir():
            shutil.copytree(path, target, copy_function=_link_or_copy)
        else:
            _link_or_copy(path, target)
        staged[name] = target
    return staged


def _link_or_copy(source: str | Path, target: str | Path) -> None:
    """A second name for the file where the file system can; MLflow makes the copy that stays."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _refuse_pickles(path: Path | None) -> None:
    found: Iterable[Path] = path.rglob("*") if path is not None else ()
    for entry in found:
        if entry.suffix in _ARCHIVE_SUFFIXES:
            raise UserError(
                f"{entry}: weights are registered as safetensors only", code="registry.unsafe_weights"
            )
