"""The model registry: versions by alias, their files, their lineage; read by other steps and by users."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentrec.core import UserError
from latentrec.tracking.embedded_store import open_client

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

MAX_NAME_LENGTH = 200
CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous"
_MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


_BAD_IN_NAMES = re.compile(r"[/\\:@%?#'\"`]|\s(?<! )")


def check_model_name(name: str) -> str:
    """``name`` as that of a registered model, or an error.

    MLflow refuses ``/``, ``:`` and names that are paths, when a model is registered: after its training. The
    other signs are refused because a name stands in ``models:/NAME@ALIAS``, in filters and in files' names.

    Raises:
        UserError: empty, too long, or with signs that cannot stand in such a name.
    """
    bad = (
        not name.strip()
        or name != name.strip()
        or len(name) > MAX_NAME_LENGTH
        or name.startswith(".")
        or not name.isprintable()
        or _BAD_IN_NAMES.search(name) is not None
    )
    if bad:
        shown = ascii(name) if len(name) <= 80 else f"{name[:77]!a}…"
        raise UserError(
            f"the model's name is {shown}; expected 1 to {MAX_NAME_LENGTH} letters, digits, '-', '_', '.' or "
            "spaces inside, such as latentr3-gift-cards",
            code="registry.bad_name",
        )
    return name


@dataclass(frozen=True)
class RegisteredVersion:
    """One registered version.

    Attributes:
        name, version: as MLflow knows it.
        aliases: that point at it now.
        tags: its lineage and verdict.
        model_id: MLflow's logged model behind it; empty where the version was made without one.
        uri: ``models:/NAME/VERSION``.
    """

    name: str
    version: str
    aliases: tuple[str, ...]
    tags: dict[str, str]
    model_id: str = ""

    @property
    def uri(self) -> str:
        """``models:/NAME/VERSION``."""
        return f"models:/{self.name}/{self.version}"


class Registry:
    """One MLflow registry, at ``MLFLOW_TRACKING_URI`` unless another is given."""

    def __init__(self, tracking_uri: str | None = None):
        from latentrec.tracking.client_limits import bound_http

        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            raise UserError(
                "no model registry is given; set MLFLOW_TRACKING_URI (after `make run` it is "
                "sqlite:///runs/mlflow.db)",
                code="registry.not_set",
            )
        bound_http()
        import mlflow

        for noisy in ("alembic", "mlflow.store.db", "mlflow.tracking", "mlflow.models", "mlflow.types"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        # Model downloads and the fluent calls of log_model read the global setting, not a client's.
        mlflow.set_tracking_uri(uri)
        self.tracking_uri = uri
        self.client: MlflowClient = open_client(uri)
        self._flavors: dict[str, dict[str, Any]] = {}

    def by_alias(self, name: str, alias: str) -> RegisteredVersion | None:
        """The version that an alias points at; ``None`` where there is no such alias or model."""
        from mlflow.exceptions import MlflowException

        try:
            found = self.client.get_model_version_by_alias(name, alias)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
        return self._registered(found)

    def by_version(self, name: str, version: str) -> RegisteredVersion:
        """One version.

        Raises:
            UserError: there is no such version; the message names those that exist.
        """
        from mlflow.exceptions import MlflowException

        try:
            return self._registered(self.client.get_model_version(name, str(version)))
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
        known = ", ".join(entry.version for entry in self.versions(name)) or "none"
        raise UserError(
            f"{name} has no version {version}; registered versions: {known}", code="registry.unknown_version"
        )

    def resolve(self, uri: str) -> RegisteredVersion:
        """The version behind ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.

        Raises:
            UserError: the location is of neither form, or nothing is registered there.
        """
        match = _MODEL_URI.fullmatch(uri)
        if match is None:
            raise UserError(
                f"{uri!r} is no registered model; expected models:/NAME@ALIAS or models:/NAME/VERSION, "
                "for example models:/latentr3@champion",
                code="registry.bad_uri",
            )
        name, alias, version = match["name"], match["alias"], match["version"]
        if version:
            return self.by_version(name, version)
        found = self.by_alias(name, alias)
        if found is not None:
            return found
        if alias == CHAMPION and (challenger := self.by_alias(name, CHALLENGER)) is not None:
            reason = challenger.tags.get("gate.reason", "no version has passed the promotion gate yet")
            raise UserError(
                f"{name} has no champion ({reason}); use models:/{name}@{CHALLENGER} "
                f"(version {challenger.version}) instead",
                code="registry.no_champion",
            )
        known = ", ".join(sorted(model.name for model in self.client.search_registered_models())) or "none"
        aliases = ", ".join(sorted(self.aliases(name))) or "none"
        raise UserError(
            f"{uri}: nothing is registered there (registered models: {known}; aliases of {name}: {aliases})",
            code="registry.not_found",
        )

    def aliases(self, name: str) -> dict[str, str]:
        """Alias → version of a registered model; empty where there is no such model."""
        from mlflow.exceptions import MlflowException

        try:
            return {alias: str(v) for alias, v in self.client.get_registered_model(name).aliases.items()}
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise

    def versions(self, name: str) -> list[RegisteredVersion]:
        """Every version, oldest first."""
        found: list[Any] = []
        token = None
        while True:
            page = self.client.search_model_versions(f"name = '{name}'", max_results=200, page_token=token)
            found.extend(page)
            token = page.token
            if not token:
                return sorted(map(self._registered, found), key=lambda entry: int(entry.version))

    def newest(self) -> RegisteredVersion | None:
        """The version that was registered last, whatever its name; ``None`` where nothing is registered."""
        newest = None
        for model in self.client.search_registered_models(max_results=1000):
            for version in self.client.search_model_versions(f"name = '{model.name}'", max_results=1000):
                if newest is None or version.creation_timestamp > newest.creation_timestamp:
                    newest = version
        return None if newest is None else self._registered(newest)

    def artifacts(self, model: RegisteredVersion) -> dict[str, str]:
        """Name → path of the artifacts inside a served model (``model``, ``catalogue``, ``card``…).

        Raises:
            UserError: its files cannot be read.
        """
        artifacts = self._flavor(model).get("artifacts", {})
        return {name: entry["path"] for name, entry in artifacts.items()}

    def config(self, model: RegisteredVersion) -> dict[str, Any]:
        """The served model's configuration: how it is decoded."""
        return dict(self._flavor(model).get("config") or {})

    def download(self, model: RegisteredVersion, artifact: str, output: Path) -> Path:
        """Copy one artifact of a served model into a folder; returns its own path there.

        Raises:
            UserError: the version was not made by ``latentrec register``, or has no such artifact.
        """
        import mlflow
        from mlflow.exceptions import MlflowException

        output.mkdir(parents=True, exist_ok=True)
        artifacts = self.artifacts(model)
        if artifact not in artifacts:
            has = ", ".join(sorted(artifacts)) or "none"
            raise UserError(
                f"{model.uri} has no artifact '{artifact}' (it has: {has}); register it with "
                "`latentrec register`",
                code="registry.missing_artifact",
            )
        try:
            place = mlflow.artifacts.download_artifacts(
                f"{model.uri}/{artifacts[artifact]}", dst_path=str(output)
            )
        except (MlflowException, OSError) as error:
            raise self._unreadable(model, error) from None
        return Path(place)

    def load(self, model: RegisteredVersion) -> Any:
        """The version as MLflow serves it (an :class:`mlflow.pyfunc.PyFuncModel`).

        Raises:
            UserError: its files cannot be read.
        """
        import mlflow
        from mlflow.exceptions import MlflowException

        try:
            return mlflow.pyfunc.load_model(model.uri)
        except (MlflowException, OSError) as error:
            raise self._unreadable(model, error) from None

    def _unreadable(self, model: RegisteredVersion, error: Exception) -> UserError:
        """The error message for a version whose files are not where the registry says."""
        place = self.client.get_model_version_download_uri(model.name, model.version)
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return UserError(
            f"{model.uri}: its files cannot be read ({reason}); they are looked for in {place}: put them "
            "there, or register the model again",
            code="registry.unreadable",
        )

    def _flavor(self, model: RegisteredVersion) -> dict[str, Any]:
        """The ``python_function`` entry of the version's MLmodel file, read without MLflow's model classes.

        Those need pandas, which the images of the early steps do not have.
        """
        import mlflow
        import yaml
        from mlflow.exceptions import MlflowException

        if model.uri not in self._flavors:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    path = mlflow.artifacts.download_artifacts(f"{model.uri}/MLmodel", dst_path=folder)
                except (MlflowException, OSError) as error:
                    raise self._unreadable(model, error) from None
                content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
            self._flavors[model.uri] = content.get("flavors", {}).get("python_function", {})
        return self._flavors[model.uri]

    @staticmethod
    def _registered(version: ModelVersion) -> RegisteredVersion:
        return RegisteredVersion(
            version.name,
            str(version.version),
            tuple(version.aliases or ()),
            dict(version.tags or {}),
            version.model_id or _logged_model(version.source or ""),
        )


def _logged_model(source: str) -> str:
    """Id of the logged model that a version's source names; SQL registries keep it nowhere else."""
    prefix = "models:/m-"
    return source.removeprefix("models:/").partition("/")[0] if source.startswith(prefix) else ""
