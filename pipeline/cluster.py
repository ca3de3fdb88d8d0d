"""A KFP installation as the commands see it: every failure is one line; pipelines are uploaded once.

Where it is comes from the environment: ``KFP_HOST``, ``KFP_NAMESPACE`` (multi-user installations),
``KFP_EXPERIMENT``, ``KFP_SERVICE_ACCOUNT``, ``KFP_PIPELINE_ROOT`` and ``KFP_CA_CERT``. So does who asks:
``KFP_TOKEN`` (a bearer token), ``KFP_TOKEN_FILE`` (a service account's token, as oauth2-proxy takes it),
``KFP_COOKIES`` (of a session), or ``KFP_IAP_CLIENT_ID`` with ``KFP_IAP_OTHER_CLIENT_ID`` and
``KFP_IAP_OTHER_CLIENT_SECRET`` (Google's Identity-Aware Proxy).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import requests
import yaml

from latentrec import __version__
from latentrec.core import UserError
from latentrec.core.settings import ALLOW_LOCAL_IMAGES_VARIABLE
from latentrec.steps.backend import HEALTH_PATH, check_backend

PROBE_SECONDS = 10


class Unreachable(UserError):
    """Nobody answers now, which may pass: a port-forward or an API server that is started again."""

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
        UserError: the host is dead, no KFP API, or refuses us; or the API refuses a request.
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
    """The token that requests carry; empty for none.

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
                "KFP_IAP_CLIENT_ID: no token from Google; run where a service account is at hand, or give "
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
        token: that the request carries; ``None``: the one that ``cluster`` leads to.

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
            f"KFP_HOST {cluster.host} answers HTTP {answer.status_code}: nobody is behind it now"
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
    """Swallow the links that the client prints; the commands print their own."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@dataclass(frozen=True)
class PipelineVersion:
    """A pipeline version on the installation.

    Attributes:
        pipeline_id: of the pipeline.
        version_id: of the version.
        name: of the version.
        created: false when the same bytes had been uploaded before.
    """

    pipeline_id: str
    version_id: str
    name: str
    created: bool


def version_name(package: Path) -> str:
    """Name of a compiled pipeline's version: release and a hash of its bytes."""
    return f"{__version__}-{hashlib.sha256(package.read_bytes()).hexdigest()[:12]}"


def check_images(package: Path) -> None:
    """Refuse images of this machine, unless ``LATENTREC_ALLOW_LOCAL_IMAGES=true``: every node has them.

    Args:
        package: a compiled pipeline.

    Raises:
        UserError: naming the image.
    """
    if os.environ.get(ALLOW_LOCAL_IMAGES_VARIABLE) == "true":
        return
    spec = next(yaml.safe_load_all(package.read_text(encoding="utf-8")))
    for entry in spec["deploymentSpec"]["executors"].values():
        image = entry.get("container", {}).get("image", "")
        if image.startswith("localhost/"):
            raise UserError(
                f"the pipeline's image is {image}, which a cluster cannot pull; set IMAGE_REGISTRY, run "
                f"`make images push`, or set {ALLOW_LOCAL_IMAGES_VARIABLE}=true where every node has it",
                code="images.not_pullable",
            )


def upload(client: Any, system: str, package: Path, *, namespace: str = "") -> PipelineVersion:
    """Upload a compiled pipeline as a version of the pipeline ``system``; the same bytes only once.

    Args:
        client: of :func:`connect`.
        system: name of the pipeline; made when it is not there.
        package: the compiled YAML.
        namespace: of a multi-user installation, where the pipeline belongs; empty: shared, or single-user.
    """
    import kfp_server_api

    check_images(package)
    name = version_name(package)
    pipeline_id = _pipeline_id(client, system, namespace)
    if pipeline_id is None:
        spec = next(yaml.safe_load_all(package.read_text(encoding="utf-8")))
        made = client.pipelines.pipeline_service_create_pipeline(
            pipeline=kfp_server_api.V2beta1Pipeline(
                display_name=system,
                name=system,
                description=spec.get("pipelineInfo", {}).get("description"),
                namespace=namespace or None,
            )
        )
        pipeline_id = made.pipeline_id
    same = {"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]}
    listed = client.list_pipeline_versions(pipeline_id, filter=json.dumps(same))
    for version in listed.pipeline_versions or []:
        if version.display_name == name:
            return PipelineVersion(pipeline_id, version.pipeline_version_id, name, created=False)
    with quiet():
        version = client.upload_pipeline_version(
            str(package), name, pipeline_id=pipeline_id, description=version_description(package)
        )
    return PipelineVersion(pipeline_id, version.pipeline_version_id, name, created=True)


def find_version(client: Any, system: str, name: str, *, namespace: str = "") -> PipelineVersion:
    """A version that is there, by its name; ``latest`` is the newest.

    Raises:
        UserError: the pipeline or the version is not there.
    """
    pipeline_id = _pipeline_id(client, system, namespace)
    if pipeline_id is None:
        raise UserError(
            f"VERSION is {name!r}, and the installation has no pipeline '{system}'",
            code="cluster.unknown_version",
        )
    listed = client.list_pipeline_versions(pipeline_id, sort_by="created_at desc", page_size=100)
    versions = listed.pipeline_versions or []
    for version in versions:
        if name in ("latest", version.display_name):
            return PipelineVersion(
                pipeline_id, version.pipeline_version_id, version.display_name, created=False
            )
    known = ", ".join(version.display_name for version in versions[:10]) or "none"
    raise UserError(f"VERSION is {name!r}; {system} has: {known}", code="cluster.unknown_version")


def version_description(package: Path) -> str:
    """What a version is made of: release, images, and the hash that its name carries."""
    spec = next(yaml.safe_load_all(package.read_text(encoding="utf-8")))
    executors = spec["deploymentSpec"]["executors"].values()
    images = sorted({entry["container"]["image"] for entry in executors if "container" in entry})
    return f"latentrec {__version__}; {spec.get('sdkVersion', '')}; images {', '.join(images)}"[:1000]


def _pipeline_id(client: Any, name: str, namespace: str) -> str | None:
    """Id of the pipeline of a name in a namespace; ``None`` where there is none."""
    wanted = {"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]}
    given = {"namespace": namespace} if namespace else {}
    found = client.pipelines.pipeline_service_list_pipelines(filter=json.dumps(wanted), **given)
    return next((entry.pipeline_id for entry in found.pipelines or []), None)


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
