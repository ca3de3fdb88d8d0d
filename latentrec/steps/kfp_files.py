"""The artifacts of a KFP step by their locations, for pods that KFP's launcher does not serve.

In a step's own pod KFP copies inputs in and outputs out. The pods of a TrainJob do that themselves, at the
same paths, so that the step's code sees no difference.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from latentrec.core import UserError
from latentrec.storage import (
    MANIFEST,
    download_directory,
    is_local,
    join,
    scheme_of,
    store_for,
    upload_directory,
)

MOUNTS = {"gs": "/gcs", "minio": "/minio", "s3": "/s3"}
"""Where KFP puts what stands in a store, by scheme; folders of the pod."""
LAUNCHERS_LOGS = "executor-logs"
"""An output that KFP's launcher adds, fills itself, and numbers by the attempt (seen with 2.17)."""
RESULT_SUFFIX = ".executor-output.json"
"""What KFP's executor has written, beside the step's first output artifact."""


def option(name: str, arguments: Sequence[str]) -> str:
    """Value of an option of KFP's executor.

    Raises:
        UserError: it is not given.
    """
    if name not in arguments[:-1]:
        raise UserError(f"KFP's executor was started without {name}", code="nodes.not_kfp")
    return arguments[arguments.index(name) + 1]


def executor_input(arguments: Sequence[str]) -> dict[str, Any]:
    """What KFP passes to a step: parameters, and artifacts with their locations."""
    return json.loads(option("--executor_input", arguments))


def same_in_every_attempt(arguments: Sequence[str]) -> list[str]:
    """The arguments of KFP's executor without what differs between two attempts of one step."""
    name = "--executor_input"
    given = executor_input(arguments)
    (given.get("outputs", {}).get("artifacts") or {}).pop(LAUNCHERS_LOGS, None)
    position = arguments.index(name) + 1
    return [*arguments[:position], json.dumps(given, sort_keys=True), *arguments[position + 1 :]]


def path_of(uri: str) -> Path:
    """Where the step finds an artifact.

    Raises:
        UserError: a store that KFP knows and we do not.
    """
    if is_local(uri):
        return Path(uri.removeprefix("file://"))
    scheme = scheme_of(uri)
    if scheme not in MOUNTS:
        raise UserError(
            f"{uri}: training on several nodes reads gs://, s3:// and minio:// artifacts",
            code="storage.bad_uri",
        )
    return Path(MOUNTS[scheme]) / uri.partition("://")[2]


def artifacts(given: Mapping[str, Any], side: str) -> Iterator[str]:
    """Locations of a step's ``inputs`` or ``outputs``: those that are the step's own affair."""
    for name, entry in (given.get(side, {}).get("artifacts") or {}).items():
        if name == LAUNCHERS_LOGS:
            continue
        for artifact in entry.get("artifacts") or []:
            if artifact.get("uri"):
                yield artifact["uri"]


def fetch(uri: str) -> None:
    """Copy an artifact, a file or a directory with a manifest, to where the step finds it.

    Raises:
        UserError: nothing is there.
        StorageError: storage failed.
    """
    path = path_of(uri)
    if is_local(uri):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    store = store_for(uri)
    if store.stat(uri) is not None:
        store.download_file(uri, path)
    else:
        download_directory(uri, path)


def send(uri: str) -> bool:
    """Copy what a step has written for an output artifact to its location; whether it wrote anything."""
    path = path_of(uri)
    if not path.exists():
        return False
    if is_local(uri):
        return True
    if path.is_file():
        store_for(uri).upload_file(path, uri)
    elif (path / MANIFEST).is_file():
        upload_directory(path, uri, replace=True)
    else:
        for file in sorted(one for one in path.rglob("*") if one.is_file()):
            store_for(uri).upload_file(file, join(uri, file.relative_to(path).as_posix()))
    return True


def result_location(given: Mapping[str, Any]) -> str:
    """Where the executor's own output is kept for the step."""
    first = next(artifacts(given, "outputs"), None)
    if first is None:
        raise UserError(
            "a step without an output artifact cannot train on several nodes", code="nodes.not_kfp"
        )
    return first.rstrip("/") + RESULT_SUFFIX


def send_outputs(given: Mapping[str, Any]) -> None:
    """From the first node: every output artifact, then the executor's output, which says that all is sent."""
    sent = [uri for uri in artifacts(given, "outputs") if send(uri)]
    output = Path(given["outputs"]["outputFile"]).read_text(encoding="utf-8")
    location = result_location(given)
    store_for(location).write_bytes(location, json.dumps({"sent": sent, "output": output}).encode())


def fetch_outputs(given: Mapping[str, Any]) -> None:
    """In the step's own pod, after its job: as if the step had run here.

    Raises:
        UserError: the job has left no result.
    """
    location = result_location(given)
    try:
        result = json.loads(store_for(location).read_bytes(location))
    except FileNotFoundError:
        raise UserError(
            f"{location} is missing: the first node ended without a result", code="nodes.no_result"
        ) from None
    for uri in result["sent"]:
        fetch(uri)
    output = Path(given["outputs"]["outputFile"])
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(result["output"], encoding="utf-8")


def component_source(arguments: Sequence[str] | None = None) -> str:
    """Text of the module that KFP's executor was given to load."""
    given = sys.argv[1:] if arguments is None else arguments
    return Path(option("--component_module_path", given)).read_text(encoding="utf-8")
