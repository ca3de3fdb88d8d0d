"""A KFP installation as the commands see it: every failure is one line.

Where it is comes from the environment: ``KFP_HOST``, ``KFP_NAMESPACE`` (multi-user installations),
``KFP_EXPERIMENT``, ``KFP_SERVICE_ACCOUNT``, ``KFP_PIPELINE_ROOT`` and ``KFP_CA_CERT``. So does who asks:
``KFP_TOKEN`` (a bearer token), ``KFP_TOKEN_FILE`` (a service account's token, as oauth2-proxy takes it),
``KFP_COOKIES`` (of a session), or ``KFP_IAP_CLIENT_ID`` with ``KFP_IAP_OTHER_CLIENT_ID`` and
``KFP_IAP_OTHER_CLIENT_SECRET`` (Google's Identity-Aware Proxy).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import requests

from latentrec.core import UserError
from latentrec.steps.backend import HEALTH_PATH, check_backend

PROBE_SECONDS = 10


class Unreachable(UserError):
    """No answer now, which may pass: a port-forward or an API server that is restarted."""

    def __init__(self, message: str):
        super().__init__(message, code="cluster.unreachable")


_AWAY = (502, 503, 504)
"""What a proxy answers for an API server that is not there."""


@dataclass(frozen=True)
class Cluster:
    """Address and identity, from the environment.

    Attributes:
        host: of the KFP API, without a slash at the end.
        token: bearer token; empty for none.
        namespace: of a multi-user installation; empty for a single-user one.
        experiment: KFP experiment that groups the runs.
        service_account: of the steps' pods; empty for the installation's own.
        pipeline_root: ``gs://`` location of artifacts; empty for the installation's own.
        ca_cert: file of the host's certificate authority; empty for the system's.
        token_file: file with a token that is renewed there, read for every connection.
        cookies: ``name=value`` of a session behind a login page.
        iap_client_id: OAuth client of Identity-Aware Proxy.
        iap_other_client_id, iap_other_client_secret: OAuth client of kind "desktop", where a person signs in.
    """

    host: str
    token: str = ""
    namespace: str = ""
    experiment: str = "latentrec"
    service_account: str = ""
    pipeline_root: str = ""
    ca_cert: str = ""
    token_file: str = ""
    cookies: str = ""
    iap_client_id: str = ""
    iap_other_client_id: str = ""
    iap_other_client_secret: str = ""

    @classmethod
    def from_environment(cls) -> Cluster:
        """Read the environment.

        Raises:
            UserError: ``KFP_HOST`` is missing.
        """
        host = os.environ.get("KFP_HOST", "").strip().rstrip("/")
        if not host:
            raise UserError(
                "KFP_HOST is not set; give the address of the KFP API, for example "
                "KFP_HOST=http://localhost:8080 after "
                "`kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80`",
                code="cluster.not_set",
            )
        if not host.startswith(("http://", "https://")):
            host = f"https://{host}"
        names = [field.name for field in fields(cls) if field.name != "host"]
        found = {name: os.environ.get(f"KFP_{name.upper()}", "") for name in names}
        found["experiment"] = found["experiment"] or cls.experiment
        return cls(host=host, **found)

    def run_link(self, run_id: str) -> str:
        """Address of a run in KFP's UI."""
        return f"{self.host}/#/runs/details/{run_id}"


@contextlib.contextmanager
def connect(cluster: Cluster) -> Iterator[Any]:
    """A ``kfp.Client``, after a probe; what goes wrong inside becomes one line.

    Raises:
        UserError: the host does not answer, is no KFP API, or refuses us; or the API refuses a request.
    """
    import kfp_server_api
    import urllib3

    token = bearer_token(cluster)
    backend_version(cluster, token)
    try:
        yield _client(cluster, token)
    except kfp_server_api.ApiException as error:
        if error.status in _AWAY:
            raise Unreachable(_refusal(cluster, error)) from None
        raise UserError(_refusal(cluster, error), code="cluster.refused") from None
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Unreachable(f"KFP_HOST {cluster.host}: connection lost ({type(error).__name__})") from None


def _client(cluster: Cluster, token: str) -> Any:
    from kfp import Client

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return Client(
            host=cluster.host,
            existing_token=token or None,
            cookies=cluster.cookies or None,
            namespace=cluster.namespace or "kubeflow",
            ssl_ca_cert=cluster.ca_cert or None,
        )


def bearer_token(cluster: Cluster) -> str:
    """The token of requests; empty for none.

    Raises:
        UserError: a token file cannot be read; Identity-Aware Proxy gives none.
    """
    if cluster.token:
        return cluster.token
    if cluster.token_file:
        try:
            return Path(cluster.token_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"KFP_TOKEN_FILE is {cluster.token_file!r}, which cannot be read ({type(error).__name__})",
                code="cluster.unreadable_token",
            ) from None
    if cluster.iap_client_id:
        from kfp.client import auth

        try:
            token, _ = auth.get_auth_token(
                cluster.iap_client_id,
                cluster.iap_other_client_id or None,
                cluster.iap_other_client_secret or None,
            )
        except Exception as error:  # whatever Google's libraries raise
            raise UserError(
                f"KFP_IAP_CLIENT_ID: no token from Google ({type(error).__name__}: {str(error)[:200]})",
                code="cluster.no_token",
            ) from None
        if not token:
            raise UserError(
                "KFP_IAP_CLIENT_ID: no token from Google; run where there is a service account, or give "
                "KFP_IAP_OTHER_CLIENT_ID and KFP_IAP_OTHER_CLIENT_SECRET to sign in",
                code="cluster.no_token",
            )
        return str(token)
    return ""


def backend_version(cluster: Cluster, token: str | None = None) -> str:
    """Version of the backend, ``unknown`` where it reports none.

    One request with a short timeout: the client itself would retry for half a minute.

    Args:
        cluster: which.
        token: of the request; ``None``: that of ``cluster``.

    Raises:
        UserError: nothing answers, or no KFP API, or one that refuses us or is too old.
    """
    token = bearer_token(cluster) if token is None else token
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    headers |= {"Cookie": cluster.cookies} if cluster.cookies else {}
    try:
        with requests.Session() as session:
            session.trust_env = False  # as the client: no proxies from the environment
            answer = session.get(
                cluster.host + HEALTH_PATH,
                headers=headers,
                timeout=PROBE_SECONDS,
                verify=cluster.ca_cert or True,
                allow_redirects=False,  # to a login page
            )
    except requests.RequestException as error:
        raise Unreachable(
            f"KFP_HOST {cluster.host} does not answer ({type(error).__name__}); is the address right, the "
            "port-forward running, the network there?"
        ) from None
    if answer.status_code in (401, 403):
        raise UserError(_unauthorised(cluster, answer.status_code), code="cluster.unauthorized")
    if answer.status_code in _AWAY:
        raise Unreachable(
            f"KFP_HOST {cluster.host} answers HTTP {answer.status_code}: no server is behind it now"
        )
    try:
        health = answer.json() if answer.status_code == 200 else None
    except ValueError:
        health = None
    if not isinstance(health, dict):
        raise UserError(
            f"KFP_HOST {cluster.host} answers {HEALTH_PATH} with HTTP {answer.status_code} and no KFP v2 "
            "status; is it the KFP API (2.0 or later), or a login page in front of it (then set KFP_TOKEN, "
            "KFP_TOKEN_FILE, KFP_COOKIES or KFP_IAP_CLIENT_ID)?",
            code="cluster.not_kfp",
        )
    return check_backend(health)


def _unauthorised(cluster: Cluster, status: int) -> str:
    names = ("token", "token_file", "iap_client_id", "cookies")
    given = next((f"KFP_{name.upper()}" for name in names if getattr(cluster, name)), "")
    held = f"refuses what {given} gives" if given else "wants a token; set KFP_TOKEN"
    space = f" (namespace {cluster.namespace})" if cluster.namespace else ""
    return f"KFP_HOST {cluster.host}{space} {held} (HTTP {status})"


def _refusal(cluster: Cluster, error: Any) -> str:
    if error.status in (401, 403):
        return _unauthorised(cluster, error.status)
    try:
        reason = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        reason = error.reason
    return f"KFP_HOST {cluster.host} refused (HTTP {error.status}): {' '.join(str(reason).split())[:300]}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the links that the client prints; the commands print their own."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def experiment_id(client: Any, cluster: Cluster) -> str:
    """Id of the experiment that groups the runs; made when it is not there."""
    with quiet():
        made = client.create_experiment(cluster.experiment, namespace=cluster.namespace or None)
    return made.experiment_id


def run_body(cluster: Cluster, parameters: Mapping[str, Any], pipeline: str, version: str) -> dict[str, Any]:
    """What a run and a recurring run have in common, as fields of the API's objects.

    Args:
        cluster: where; its service account and pipeline root are the run's.
        parameters: of the run.
        pipeline: id of the pipeline.
        version: id of its version; empty for the newest of the moment that a run starts.
    """
    import kfp_server_api as api

    return {
        "service_account": cluster.service_account or None,
        "runtime_config": api.V2beta1RuntimeConfig(
            parameters=dict(parameters), pipeline_root=cluster.pipeline_root or None
        ),
        "pipeline_version_reference": api.V2beta1PipelineVersionReference(
            pipeline_id=pipeline, pipeline_version_id=version or None
        ),
    }
