"""Where bytes live: locations (file, gs://, https://), atomic artifacts, step status, checkpoints.

The only room that knows Google Cloud Storage.
"""

from latentrec.steps.status import StepStatus, exit_code_on_error, read_step_statuses, step_status
from latentrec.storage.artifact import MANIFEST, ArtifactWriter, Manifest, read_manifest, sha256_file
from latentrec.storage.checkpoints import CheckpointInfo, CheckpointStore, StaleAttempt
from latentrec.storage.directories import (
    download_directory,
    input_fingerprint,
    list_inputs,
    upload_directory,
)
from latentrec.storage.local import exclusive, local_path
from latentrec.storage.output import check_output, check_output_file, expand_output, replacing
from latentrec.storage.types import ABSENT, ObjectInfo, PreconditionFailed, StorageError, Store
from latentrec.storage.uri import is_local, join, scheme_of, store_for

__all__ = [
    "ABSENT",
    "MANIFEST",
    "ArtifactWriter",
    "CheckpointInfo",
    "CheckpointStore",
    "Manifest",
    "ObjectInfo",
    "PreconditionFailed",
    "StaleAttempt",
    "StepStatus",
    "StorageError",
    "Store",
    "check_output",
    "check_output_file",
    "download_directory",
    "exclusive",
    "exit_code_on_error",
    "expand_output",
    "input_fingerprint",
    "is_local",
    "join",
    "list_inputs",
    "local_path",
    "read_manifest",
    "read_step_statuses",
    "replacing",
    "scheme_of",
    "sha256_file",
    "step_status",
    "store_for",
    "upload_directory",
]
