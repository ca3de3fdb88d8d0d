"""The connection to Google Cloud Storage: credentials, retries, a probe, and errors in words.

Credentials are those of the environment only (Workload Identity, application default credentials); with
``STORAGE_EMULATOR_HOST`` set there are none.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import requests
from google.api_core import exceptions as api
from google.api_core.client_info import ClientInfo
from google.api_core.retry import Retry
from google.auth import exceptions as auth
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from latentrec import __version__
from latentrec.core import UserError
from latentrec.storage.transfer import Timeouts, workers
from latentrec.storage.types import PreconditionFailed, StorageError

_PROBE_ATTEMPTS = 3
_TRANSFER_ATTEMPTS = 3
T = TypeVar("T")
_URL = re.compile(r"https?://\S+")


class GcsConnection:
    """One client for a process, made at first use; probes each bucket once before it is used."""

    def __init__(self, timeouts: Timeouts):
        self.timeouts = timeouts
        self.retry: Retry = DEFAULT_RETRY.with_timeout(timeouts.retry).with_delay(0.2, 8.0, 2.0)
        self._client: storage.Client | None = None
        self._probed: set[str] = set()
        self._lock = threading.Lock()

    @property
    def client(self) -> storage.Client:
        """The library's client."""
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def bucket(self, name: str) -> storage.Bucket:
        """The client of a bucket, once the service has answered.

        Raises:
            UserError: no credentials, or no such bucket.
            StorageError: nothing answers at the endpoint (found within seconds, before any long retry).
        """
        client = self.client
        with self._lock:
            if name not in self._probed:
                self._probe(client, name)
                self._probed.add(name)
        return client.bucket(name)

    def _connect(self) -> storage.Client:
        info = ClientInfo(user_agent=f"latentrec/{__version__}")
        try:
            client = storage.Client(project=None, client_info=info)
        except auth.DefaultCredentialsError as error:
            raise UserError(
                "no Google Cloud credentials: give the pod a service account with Workload Identity, or run "
                f"'gcloud auth application-default login' ({error})",
                code="storage.no_credentials",
            ) from None
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=2 * workers() + 2)
        for scheme in ("http://", "https://"):
            client._http.mount(scheme, adapter)
        # By default the library asks for each bucket's location from a thread of its own, to annotate traces:
        # a request that is not needed here, by a right (storage.buckets.get) that object users do not have.
        os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
        return client

    def _probe(self, client: storage.Client, bucket: str) -> None:
        endpoint = client._connection.API_BASE_URL
        url = f"{endpoint}/storage/v1/b/{bucket}/o?maxResults=1&fields=kind"
        for attempt in range(_PROBE_ATTEMPTS):
            try:
                with explained(f"gs://{bucket}"):
                    response = client._http.get(url, timeout=self.timeouts.timeout)
            except StorageError:
                if attempt + 1 < _PROBE_ATTEMPTS:
                    continue
                hint = "; STORAGE_EMULATOR_HOST is set" if os.environ.get("STORAGE_EMULATOR_HOST") else ""
                raise StorageError(
                    f"gs://{bucket}: nothing answers at {endpoint} within {self.timeouts.connect:g} s{hint}; "
                    "check the network, or try again later",
                    code="storage.no_answer",
                ) from None
            if response.status_code == 404:
                raise UserError(
                    f"gs://{bucket}: there is no such bucket (or it may not be seen)",
                    code="storage.not_found",
                )
            return  # 401, 403 and 5xx: the request itself will say, with its own right and its own retries


@contextmanager
def explained(uri: str, timeouts: Timeouts | None = None) -> Iterator[None]:
    """Turn the library's errors on ``uri`` into those of :class:`latentrec.storage.types.Store`."""
    try:
        yield
    except api.RetryError as error:
        waited = f" for {timeouts.retry:g} s" if timeouts else ""
        cause = _first_line(error.cause or error)
        raise StorageError(
            f"{uri}: no success{waited} ({cause}); try again later", code="storage.no_answer"
        ) from error
    except (api.PreconditionFailed, api.NotModified) as error:
        raise PreconditionFailed(f"{uri}: another writer was there first") from error
    except api.NotFound as error:
        said = _URL.sub("", str(error)).lower()  # names in the address may hold either word
        if "bucket" in said and "object" not in said:
            raise UserError(
                f"{uri}: there is no such bucket (or it was removed)", code="storage.not_found"
            ) from error
        raise FileNotFoundError(f"{uri} does not exist") from error
    except (api.Unauthorized, auth.RefreshError, auth.InvalidOperation) as error:
        raise UserError(
            f"{uri}: the credentials were refused ({_first_line(error)}); they may have expired: renew them "
            "('gcloud auth application-default login') or check the pod's service account",
            code="storage.access_denied",
        ) from error
    except api.Forbidden as error:
        raise UserError(
            f"{uri}: access denied ({_first_line(error)}); grant the service account "
            "roles/storage.objectUser on the bucket",
            code="storage.access_denied",
        ) from error
    except DataCorruption as error:
        raise Corrupted(f"{uri}: damaged in transit, the checksum does not match") from error
    except api.BadRequest as error:
        if "hash" in str(error).lower() or "checksum" in str(error).lower():
            raise Corrupted(f"{uri}: damaged in transit ({_first_line(error)})") from error
        raise StorageError(f"{uri}: refused ({_first_line(error)})", code="storage.bad_answer") from error
    except (api.GoogleAPICallError, InvalidResponse, auth.TransportError) as error:
        raise StorageError(
            f"{uri}: {_first_line(error)}; try again later", code="storage.no_answer"
        ) from error
    except (requests.RequestException, ConnectionError, TimeoutError) as error:
        raise StorageError(
            f"{uri}: the connection failed ({_first_line(error)}); try again later", code="storage.no_answer"
        ) from error


class Corrupted(StorageError):
    """A checksum did not match; the transfer is worth repeating."""

    def __init__(self, message: str):
        super().__init__(message, code="storage.corrupted")


def repeat_if_corrupted(action: Callable[[], T]) -> T:
    """Call ``action``, again while a checksum does not match; three times at most."""
    for _ in range(_TRANSFER_ATTEMPTS - 1):
        try:
            return action()
        except Corrupted:
            continue
    return action()


def _first_line(error: Any) -> str:
    """What the service said, in one line, without the request's address (an upload's address is a secret)."""
    if isinstance(error, api.GoogleAPICallError | InvalidResponse) and error.response is not None:
        response = error.response
        try:
            text = response.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            text = response.reason or "no reason given"
        return f"HTTP {response.status_code}: {str(text).strip().splitlines()[0][:200]}"
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
