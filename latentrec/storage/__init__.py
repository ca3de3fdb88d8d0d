"""Where bytes live: locations (file, gs://, https://), atomic artifacts, checkpoints.

The only layer that uses google-cloud-storage.
"""

from latentrec.storage.artifact import ArtifactWriter
from latentrec.storage.checkpoints import CheckpointStore, StaleAttempt
from latentrec.storage.directories import download_directory, upload_directory
from latentrec.storage.input_listing import (
    find_objects,
    input_fingerprint,
    list_inputs,
)
from latentrec.storage.local import exclusive, local_path
from latentrec.storage.manifest import MANIFEST, Manifest, listed_files, read_manifest, sha256_file
from latentrec.storage.output import replacing
from latentrec.storage.output_checks import check_output, check_output_file, expand_output
from latentrec.storage.types import ABSENT, PreconditionFailed, StorageError
from latentrec.storage.uri import is_local, join, scheme_of, store_for

__all__ = [
    "ABSENT",
    "MANIFEST",
    "ArtifactWriter",
    "CheckpointStore",
    "Manifest",
    "PreconditionFailed",
    "StaleAttempt",
    "StorageError",
    "check_output",
    "check_output_file",
    "download_directory",
    "exclusive",
    "expand_output",
    "find_objects",
    "input_fingerprint",
    "is_local",
    "join",
    "list_inputs",
    "listed_files",
    "local_path",
    "read_manifest",
    "replacing",
    "scheme_of",
    "sha256_file",
    "store_for",
    "upload_directory",
]
