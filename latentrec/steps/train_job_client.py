"""Follows a TrainJob on the API server: creates or adopts it, waits for it, says how it ended.

The watch is taken up again where the server ends it (its version expired, the connection broke, a time
without news); each time the job is read anew, so that nothing is missed in between.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from latentrec.core import UserError
from latentrec.steps.pods import KubernetesApi, pod_facts
from latentrec.steps.train_job import CONTAINER, GROUP, PLURAL, PODS_OF_JOB, RUN_LABEL, VERSION
from latentrec.steps.train_job_log import FirstNodeLog, to_stderr
from latentrec.steps.train_job_state import (
    condition,
    describe,
    exit_code,
    has_ended,
    has_succeeded,
    out_of_memory,
    refusal,
    state_of,
)

logger = logging.getLogger(__name__)

WATCH_S = 30
"""Seconds of one watch; the job and its pods are read again after each."""
AWAY_S = 600.0
"""How long the API server may be away before the step gives up (KFP's retry then adopts the job)."""
CONNECT_S = 10
GONE, CONFLICT, NOT_FOUND = 410, 409, 404


class ClusterAwayError(ConnectionError):
    """The API server did not answer for :data:`AWAY_S`; the job may run on."""


@dataclass(frozen=True)
class Ended:
    """How a job came to its end.

    Attributes:
        succeeded: whether every node did.
        reason: what went wrong, naming node and pod; empty for a success.
        bad_input: whether a node left with exit code 2: another attempt would end alike.
    """

    succeeded: bool
    reason: str = ""
    bad_input: bool = False


@dataclass
class TrainJobClient:
    """The TrainJobs of one namespace.

    Args:
        api: the API server as the step's pod sees it.
        write: takes the log of the job's first node, line by line.
        pause_s: between two questions, where something is waited for.
        away_s: how long the API server may be away before the step gives up.
    """

    api: KubernetesApi
    write: Callable[[str], None] = to_stderr
    pause_s: float = 5.0
    away_s: float = AWAY_S
    _lost: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Open the client; it reads the pod's token anew for each call, because Kubernetes replaces it."""
        from kubernetes import client

        configuration = client.Configuration(host=self.api.address)
        configuration.ssl_ca_cert = str(self.api.authority) if self.api.authority else None
        configuration.refresh_api_key_hook = self._refresh
        configuration.retries = False
        configuration.proxy = None  # the API server is in the cluster
        self._refresh(configuration)
        connection = client.ApiClient(configuration)
        self._objects = client.CustomObjectsApi(connection)
        self._core = client.CoreV1Api(connection)
        self._where = (GROUP, VERSION, self.api.namespace, PLURAL)

    def _refresh(self, configuration: Any) -> None:
        fresh = KubernetesApi.from_pod()
        token = fresh.token if fresh else self.api.token
        configuration.api_key["authorization"] = f"Bearer {token}"

    def own_pod(self, name: str) -> dict[str, Any]:
        """A pod as the API server returns it."""
        from kubernetes.client import ApiException

        try:
            found = self._patiently(
                lambda: self._core.read_namespaced_pod(
                    name, self.api.namespace, _preload_content=False, _request_timeout=self._timeout()
                )
            )
        except ApiException as error:
            raise UserError(
                f"the step's own pod {name} cannot be read (HTTP {error.status}); its account needs `get` on "
                "pods (manifests/base/accounts.yaml)",
                code="nodes.refused",
            ) from error
        return json.loads(found.data)

    def check(self, job: Mapping[str, Any]) -> None:
        """Ask the API server whether it would take a job, without making it.

        Raises:
            UserError: it would not, and why.
        """
        self._create(job, dry_run="All")

    def create_or_adopt(self, job: Mapping[str, Any]) -> str:
        """Make the job; one that an earlier attempt of this step has made is followed on, unless it failed.

        Returns:
            ``created``, ``adopted`` or ``replaced``.

        Raises:
            UserError: the API server refuses the job.
        """
        word = "created"
        name = job["metadata"]["name"]
        while True:
            if self._create(job):
                return word
            found = self._read(name)
            if found is None:
                continue  # it went between the two calls
            if found["metadata"].get("deletionTimestamp") is None and has_succeeded(found) is not False:
                return "adopted"
            self.delete(name)
            self._wait_until_gone(name)
            word = "replaced"

    def follow(self, name: str) -> Ended:
        """Wait for the job's end; its log goes to ``write`` and its lost nodes to the step's log.

        Raises:
            ClusterAwayError: the API server did not answer for :data:`AWAY_S`.
        """
        stop = threading.Event()
        log = FirstNodeLog(self._core, self.api.namespace, partial(self._pods, name), self.write)
        reader = threading.Thread(target=log.follow, args=(stop, self.pause_s), daemon=True)
        reader.start()
        shown = ""
        try:
            for job in self._states(name):
                if job is None:
                    return Ended(False, f"the TrainJob {name} was deleted")
                self._note_lost(name)
                state = state_of(job)
                if state != shown:
                    logger.info("TrainJob %s: %s", name, state)
                    shown = state
                if (succeeded := has_succeeded(job)) is not None:
                    return Ended(True) if succeeded else self._failure(name, job)
        finally:
            stop.set()
            reader.join(timeout=self.pause_s)
        raise AssertionError("a watch has no end of its own")

    def delete(self, name: str) -> None:
        """Remove the job and its pods; nothing where it is gone."""
        from kubernetes.client import ApiException

        try:
            self._patiently(
                lambda: self._objects.delete_namespaced_custom_object(
                    *self._where, name, propagation_policy="Foreground", _request_timeout=self._timeout()
                )
            )
        except ApiException as error:
            if error.status != NOT_FOUND:
                raise

    def of_run(self, run_id: str) -> list[str]:
        """Names of the jobs that a pipeline run has made."""
        found = self._patiently(
            lambda: self._objects.list_namespaced_custom_object(
                *self._where, label_selector=f"{RUN_LABEL}={run_id[:63]}", _request_timeout=self._timeout()
            )
        )
        return [job["metadata"]["name"] for job in found["items"]]

    # What the calls above are made of

    def _create(self, job: Mapping[str, Any], **options: Any) -> bool:
        """Whether the job was made; false where one of its name stands."""
        from kubernetes.client import ApiException

        try:
            self._patiently(
                lambda: self._objects.create_namespaced_custom_object(
                    *self._where, dict(job), _request_timeout=self._timeout(), **options
                )
            )
        except ApiException as error:
            if error.status == CONFLICT:
                return False
            raise UserError(refusal(error), code="nodes.refused") from error
        return True

    def _read(self, name: str) -> dict[str, Any] | None:
        from kubernetes.client import ApiException

        try:
            return self._patiently(
                lambda: self._objects.get_namespaced_custom_object(
                    *self._where, name, _request_timeout=self._timeout()
                )
            )
        except ApiException as error:
            if error.status == NOT_FOUND:
                return None
            raise

    def _wait_until_gone(self, name: str) -> None:
        until = time.monotonic() + self.away_s
        while self._read(name) is not None:
            if time.monotonic() > until:
                raise UserError(
                    f"the TrainJob {name} of an earlier attempt does not go away; delete it",
                    code="nodes.job_stays",
                )
            time.sleep(min(self.pause_s, 1.0))

    def _states(self, name: str) -> Iterator[dict[str, Any] | None]:
        """The job as it is, whenever there may be news; ``None`` once it is gone."""
        while True:
            job = self._read(name)
            yield job
            if job is None:
                return
            yield from self._watched(name, job["metadata"]["resourceVersion"])

    def _watched(self, name: str, version: str) -> Iterator[dict[str, Any]]:
        """The job's changes after a version, until the watch ends for whatever reason."""
        from kubernetes import watch
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            for event in watch.Watch().stream(
                self._objects.list_namespaced_custom_object,
                *self._where,
                field_selector=f"metadata.name={name}",
                resource_version=version,
                allow_watch_bookmarks=True,
                timeout_seconds=WATCH_S,
                _request_timeout=(CONNECT_S, WATCH_S + CONNECT_S),
            ):
                if event["type"] == "DELETED":
                    return
                if event["type"] in ("ADDED", "MODIFIED"):
                    yield event["raw_object"]
        except ApiException as error:
            if error.status != GONE:
                logger.info("the watch of %s ended with HTTP %s", name, error.status)
            time.sleep(self.pause_s)
        except (HTTPError, ValueError) as error:  # broken off, or a line cut short
            logger.info("the watch of %s broke off (%s)", name, type(error).__name__)
            time.sleep(self.pause_s)

    def _pods(self, name: str) -> list[dict[str, Any]]:
        from kubernetes.client import ApiException

        try:
            found = self._patiently(
                lambda: self._core.list_namespaced_pod(
                    self.api.namespace,
                    label_selector=f"{PODS_OF_JOB}={name}",
                    _request_timeout=self._timeout(),
                    _preload_content=False,
                )
            )
        except ApiException as error:
            logger.info("the pods of %s cannot be listed (HTTP %s)", name, error.status)
            return []
        return json.loads(found.data)["items"]

    def _note_lost(self, name: str) -> None:
        """Log each pod that was lost once: the others are started again with it."""
        for pod in self._pods(name):
            uid = pod["metadata"]["uid"]
            reason = pod_facts(pod, CONTAINER).reason
            if reason and has_ended(pod) and uid not in self._lost:
                self._lost[uid] = describe(pod, reason)
                logger.warning("TrainJob %s: %s", name, self._lost[uid])

    def _failure(self, name: str, job: Mapping[str, Any]) -> Ended:
        """What the failed pods say, the cause before those that lost their peer; else what was seen of
        earlier ones; else what the job says."""
        failed = []
        for pod in self._pods(name):
            facts = pod_facts(pod, CONTAINER)
            if facts.reason and has_ended(pod):
                rank = (exit_code(pod) != 2, not out_of_memory(pod), facts.ended or float("inf"))
                failed.append((*rank, describe(pod, facts.reason)))
        found = condition(job, "Failed") or {}
        stated = f"{found.get('reason', 'Failed')}: {found.get('message', '')}".rstrip(": ")
        if failed:
            first = min(failed)
            return Ended(False, first[-1], bad_input=not first[0])
        seen = list(self._lost.values())
        return Ended(False, seen[-1] if seen else f"TrainJob {name}: {stated}")

    def _patiently(self, call: Callable[[], Any]) -> Any:
        """Call, and call again while the API server is away or overloaded.

        Raises:
            ClusterAwayError: it was away for too long.
            ApiException: it answers with a refusal.
        """
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        until = time.monotonic() + self.away_s
        while True:
            try:
                return call()
            except ApiException as error:
                if error.status not in (0, 429) and (error.status or 0) < 500:
                    raise
                problem = f"HTTP {error.status}"
            except (HTTPError, OSError) as error:
                problem = type(error).__name__
            if time.monotonic() > until:
                raise ClusterAwayError(
                    f"the Kubernetes API server did not answer for {self.away_s:.0f} s ({problem})"
                )
            logger.info("the Kubernetes API server does not answer (%s); asking again", problem)
            time.sleep(self.pause_s)

    @staticmethod
    def _timeout() -> tuple[int, int]:
        return CONNECT_S, WATCH_S
