"""A server that speaks what we use of the KFP v2beta1 REST API, written from its published definition.

It is as strict as the real one where mistakes would hide: unknown fields and parameters, missing references,
names that exist already and packages that are no pipeline are refused with the error body of the API
(``{"error", "code", "message"}``). What arrived is kept for the tests to look at.
"""

from __future__ import annotations

import email.parser
import email.policy
import itertools
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

NOT_FOUND, INVALID, EXISTS, UNAUTHENTICATED = (404, 5), (400, 3), (409, 6), (401, 16)
UNAVAILABLE, INTERNAL = (503, 14), (500, 13)
RUN_FIELDS = {"experiment_id", "display_name", "pipeline_version_reference", "runtime_config"}
RUN_FIELDS |= {"service_account", "description", "pipeline_spec"}
RECURRING_FIELDS = RUN_FIELDS | {"max_concurrency", "trigger", "mode", "no_catchup", "namespace"}


class Refused(Exception):
    """An error answer: (HTTP status, gRPC code) and message."""

    def __init__(self, kind: tuple[int, int], message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Handler(BaseHTTPRequestHandler):
    """One request; the routes stand in ``KfpServer``."""

    server: KfpServer

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep test output clean."""

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append(f"{self.command} {parts.path}")
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        try:
            if self.server.away:
                raise Refused(UNAVAILABLE, "no healthy upstream")
            if self.server.cookie and self.headers.get("Cookie") != self.server.cookie:
                raise Refused(UNAUTHENTICATED, "no session")
            if self.server.token and self.headers.get("Authorization") != f"Bearer {self.server.token}":
                raise Refused(UNAUTHENTICATED, "Request header error: there is no user identity header.")
            self._send(200, self.server.answer(self.command, parts.path, query, body, self.headers))
        except Refused as error:
            status, code = error.kind
            self._send(status, {"error": str(error), "code": code, "message": str(error)})

    do_GET = do_POST = do_DELETE = _serve

    def _send(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class KfpServer(ThreadingHTTPServer):
    """Experiments, pipelines, versions, runs and recurring runs, each a dictionary by id.

    Attributes:
        token: bearer token that requests must carry; empty for none.
        requests: "METHOD /path" of every request.
        page_size: entries of a page at most.
        away: whether a proxy answers in the server's place.
        cookie: what requests must carry; empty for none.
        refuse_cron: whether every cron expression is refused.
    """

    daemon_threads = True

    def __init__(self, *, token: str = "", page_size: int = 1000) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.token, self.page_size = token, page_size
        self.away = False
        self.cookie = ""
        self.refuse_cron = False
        self.requests: list[str] = []
        self.experiments: dict[str, dict] = {}
        self.pipelines: dict[str, dict] = {}
        self.versions: dict[str, dict] = {}
        self.runs: dict[str, dict] = {}
        self.recurring: dict[str, dict] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self.on_run: Callable[[dict], None] | None = None
        self.on_recurring: Callable[[dict], None] | None = None
        self.on_terminate: Callable[[dict], None] | None = None
        self.health: dict[str, Any] = {"multi_user": False, "tag_name": "2.17.0", "commit_sha": "unknown"}

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def start(self) -> KfpServer:
        """Serve in a thread."""
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop serving and close the port."""
        self.shutdown()
        self.server_close()

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes, headers: Any) -> Any:
        """Route one request; raises ``Refused``."""
        with self._lock:
            for verb, pattern, serve in self._routes():
                found = re.fullmatch(f"/apis/v2beta1/{pattern}", path)
                if verb == method and found:
                    return serve(*found.groups(), query=query, body=body, headers=headers)
        raise Refused(NOT_FOUND, f"Not Found: {method} {path}")

    def _routes(self) -> list[tuple[str, str, Callable]]:
        word = r"([^/:]+)"
        return [
            ("GET", "healthz", lambda **_: self.health),
            ("GET", "experiments", lambda query, **_: self._list("experiments", self.experiments, query)),
            ("POST", "experiments", self._create_experiment),
            ("GET", "pipelines", lambda query, **_: self._list("pipelines", self.pipelines, query)),
            ("POST", "pipelines", self._create_pipeline),
            ("POST", "pipelines/upload_version", self._upload_version),
            ("GET", f"pipelines/{word}/versions", self._list_versions),
            (
                "GET",
                f"pipelines/{word}/versions/{word}",
                lambda _, key, **__: self._get(self.versions, "Pipeline version", key),
            ),
            ("POST", "runs", self._create_run),
            ("GET", "runs", lambda query, **_: self._list("runs", self.runs, query)),
            ("GET", f"runs/{word}", lambda key, **_: self._get(self.runs, "Run", key)),
            ("POST", f"runs/{word}:terminate", self._terminate),
            ("POST", "recurringruns", self._create_recurring),
            (
                "GET",
                f"recurringruns/{word}",
                lambda key, **_: self._get(self.recurring, "Recurring run", key),
            ),
            ("GET", "recurringruns", lambda query, **_: self._list("recurringRuns", self.recurring, query)),
            ("POST", f"recurringruns/{word}:(enable|disable)", self._switch),
            ("DELETE", f"recurringruns/{word}", self._delete_recurring),
        ]

    def _new(self, table: dict[str, dict], key: str, entry: dict) -> dict:
        identity = f"{key.removesuffix('_id').replace('_', '-')}-{next(self._numbers)}"
        table[identity] = {key: identity, **entry, "created_at": "2026-01-05T03:00:00Z"}
        return table[identity]

    @staticmethod
    def _get(table: dict[str, dict], kind: str, key: str) -> dict:
        if key not in table:
            raise Refused(NOT_FOUND, f"{kind} {key} not found")
        return table[key]

    def _list(self, name: str, table: dict[str, dict], query: dict[str, str]) -> dict:
        entries = list(table.values())
        if "experiment_id" in query:
            entries = [entry for entry in entries if entry.get("experiment_id") == query["experiment_id"]]
        for wanted in json.loads(query.get("filter") or "{}").get("predicates", []):
            if wanted["operation"] not in (1, "EQUALS"):
                raise Refused(INVALID, f"operation {wanted['operation']} is not supported")
            value = wanted.get("stringValue", wanted.get("string_value"))
            entries = [entry for entry in entries if entry.get(wanted["key"]) == value]
        begin = int(query.get("page_token") or 0)
        end = begin + min(int(query.get("page_size") or self.page_size), self.page_size)
        answer: dict[str, Any] = {"total_size": len(entries)}
        if entries:
            answer[name] = entries[begin:end]
        if end < len(entries):
            answer["next_page_token"] = str(end)
        return answer

    @staticmethod
    def _json(body: bytes, known: set[str]) -> dict:
        found = json.loads(body)
        for name in sorted(set(found) - known):
            raise Refused(INVALID, f'proto: unknown field "{name}"')
        return found

    def _create_experiment(self, body: bytes, **_: Any) -> dict:
        given = self._json(body, {"display_name", "description", "namespace"})
        if any(entry["display_name"] == given["display_name"] for entry in self.experiments.values()):
            raise Refused(EXISTS, f"Already exist error: experiment {given['display_name']}")
        return self._new(self.experiments, "experiment_id", given)

    def _create_pipeline(self, body: bytes, **_: Any) -> dict:
        given = self._json(body, {"name", "display_name", "description", "namespace"})
        if any(entry["display_name"] == given["display_name"] for entry in self.pipelines.values()):
            raise Refused(EXISTS, f"Already exist error: pipeline {given['display_name']}")
        return self._new(self.pipelines, "pipeline_id", given)

    def _list_versions(self, pipeline: str, query: dict[str, str], **_: Any) -> dict:
        self._get(self.pipelines, "Pipeline", pipeline)
        own = {key: entry for key, entry in self.versions.items() if entry["pipeline_id"] == pipeline}
        return self._list("pipeline_versions", own, query)

    def _upload_version(self, query: dict[str, str], body: bytes, headers: Any, **_: Any) -> dict:
        pipeline = self._get(self.pipelines, "Pipeline", query["pipelineid"])["pipeline_id"]
        own = [entry for entry in self.versions.values() if entry["pipeline_id"] == pipeline]
        if any(entry["display_name"] == query["name"] for entry in own):
            raise Refused(EXISTS, f"Already exist error: pipeline version {query['name']}")
        head = b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n"
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
        (part,) = [
            part
            for part in message.iter_parts()
            if part.get_param("name", header="Content-Disposition") == "uploadfile"
        ]
        documents = list(yaml.safe_load_all(part.get_payload(decode=True)))
        try:
            json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())
        except json_format.ParseError as error:
            raise Refused(INVALID, f"Failed to parse the pipeline: {error}") from None
        entry = {"pipeline_id": pipeline, "display_name": query["name"], "pipeline_spec": documents[0]}
        if "description" in query:
            entry["description"] = query["description"]
        return self._new(self.versions, "pipeline_version_id", entry)

    def _checked_run(self, given: dict) -> dict:
        self._get(self.experiments, "Experiment", given.get("experiment_id", ""))
        if len(given.get("description") or "") > 255:
            raise Refused(INTERNAL, "Error 1406 (22001): Data too long for column 'Description' at row 1")
        reference = given.get("pipeline_version_reference") or {}
        own = [v for v in self.versions.values() if v["pipeline_id"] == reference.get("pipeline_id")]
        if reference.get("pipeline_version_id") or not own:
            version = self._get(self.versions, "Pipeline version", reference.get("pipeline_version_id", ""))
        else:  # the newest, of a reference that names the pipeline alone
            version = own[-1]
        if reference.get("pipeline_id") != version["pipeline_id"]:
            raise Refused(INVALID, "the version belongs to another pipeline")
        inputs = version["pipeline_spec"]["root"].get("inputDefinitions", {}).get("parameters", {})
        values = (given.get("runtime_config") or {}).get("parameters") or {}
        for name in values:
            if name not in inputs:
                raise Refused(INVALID, f"parameter {name} is not an input of the pipeline")
        for name, definition in inputs.items():
            if name not in values and "defaultValue" not in definition and not definition.get("isOptional"):
                raise Refused(INVALID, f"parameter {name} is missing")
        return given

    def _create_run(self, body: bytes, **_: Any) -> dict:
        run = self._new(self.runs, "run_id", self._checked_run(self._json(body, RUN_FIELDS)))
        run["state"] = "PENDING"
        if self.on_run:
            self.on_run(run)
        return run

    def _create_recurring(self, body: bytes, **_: Any) -> dict:
        given = self._checked_run(self._json(body, RECURRING_FIELDS))
        cron = (given.get("trigger") or {}).get("cron_schedule", {}).get("cron", "")
        if self.refuse_cron or len(cron.split()) not in (5, 6):
            raise Refused(INVALID, f"The Cron string is invalid: {cron}")
        if not 1 <= int(given.get("max_concurrency", 0)) <= 10:
            raise Refused(INVALID, "The max concurrency must be between 1 and 10")
        given["status"] = "ENABLED" if given.pop("mode", "") == "ENABLE" else "DISABLED"
        made = self._new(self.recurring, "recurring_run_id", given)
        if self.on_recurring:
            self.on_recurring(made)
        return made

    def add_run(self, **entry: Any) -> dict:
        """A run that nobody has asked for by the API: of a recurring run."""
        return self._new(self.runs, "run_id", entry)

    def _terminate(self, key: str, **_: Any) -> dict:
        run = self._get(self.runs, "Run", key)
        run["state"] = "CANCELING"
        if self.on_terminate:
            self.on_terminate(run)
        return {}

    def _switch(self, key: str, action: str, **_: Any) -> dict:
        self._get(self.recurring, "Recurring run", key)["status"] = f"{action.upper()}D"
        return {}

    def _delete_recurring(self, key: str, **_: Any) -> dict:
        self._get(self.recurring, "Recurring run", key)
        del self.recurring[key]
        return {}
