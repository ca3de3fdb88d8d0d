"""Notifications: one message to a webhook when a run fails, is terminated or promotes a model.

The body is what Slack's incoming webhooks take (Mattermost, Rocket.Chat and Google Chat read it too):
``{"text": "…"}``, with the same facts as fields under ``latentrec`` for receivers that are programs. The
address is a secret (it is all that posting takes) and comes from a Kubernetes Secret: of it, only the host is
ever shown. A receiver that is away costs half a minute and fails nothing.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from latentrec.core.redact import redact, redact_values
from latentrec.core.retry import Retries
from latentrec.core.settings import (
    NOTIFY_ON_VARIABLE,
    NOTIFY_URL_VARIABLE,
    PIPELINE_VARIABLE,
    RUN_ID_VARIABLE,
)
from latentrec.core.text import printable
from latentrec.steps.links import kfp_tags
from latentrec.steps.status import StepStatus
from latentrec.steps.verdict import Outcome, RunVerdict

logger = logging.getLogger(__name__)

EVENTS = ("failed", "terminated", "promoted", "succeeded", "nothing_new")
"""The events of a run; a success that promotes a model is ``promoted``."""
DEFAULT_EVENTS = ("failed", "terminated", "promoted")
ATTEMPTS, TIMEOUT_S, PAUSE_S = 2, 10, 5
LONGEST_REASON = 500

_OUTCOMES = {
    Outcome.FAILED: "failed",
    Outcome.TERMINATED: "terminated",
    Outcome.SUCCEEDED: "succeeded",
    Outcome.NOTHING_NEW: "nothing_new",
}
_EVENT_TEXTS = {
    "failed": "failed",
    "terminated": "was terminated",
    "promoted": "promoted a model",
    "succeeded": "succeeded, without a promotion",
    "nothing_new": "found nothing new",
}


def notify(verdict: RunVerdict, statuses: Sequence[StepStatus], links: Mapping[str, str]) -> str:
    """Send the installation's webhook the outcome of a run, if it subscribes to that event.

    Args:
        verdict: of the run.
        statuses: of its steps.
        links: label and address of the run's pages, besides KFP's own.

    Returns:
        What was done, in words for the log; empty where no webhook is set. Nothing is raised.
    """
    url = os.environ.get(NOTIFY_URL_VARIABLE, "").strip()
    if not url:
        return ""
    try:
        event = event_of(verdict, statuses)
        if event not in wanted_events(os.environ.get(NOTIFY_ON_VARIABLE, "")):
            return f"not sent: {event} is not in {NOTIFY_ON_VARIABLE}"
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            return f"not sent: {NOTIFY_URL_VARIABLE} is no http or https address"
        problem = _post(url, payload(event, verdict, statuses, links))
        return (
            f"{event} was not sent to {parts.hostname} ({problem})"
            if problem
            else (f"{event} sent to {parts.hostname}")
        )
    except Exception as error:  # the run's verdict stands; the error's text may hold the address
        return f"not sent ({type(error).__name__})"


def event_of(verdict: RunVerdict, statuses: Sequence[StepStatus]) -> str:
    """Which of :data:`EVENTS` a run is."""
    event = _OUTCOMES[verdict.outcome]
    if event == "succeeded" and _details(statuses, "register").get("promoted"):
        return "promoted"
    return event


def wanted_events(text: str) -> tuple[str, ...]:
    """Events from a setting like ``failed,promoted``; empty or without a known word: the default ones."""
    words = text.replace(",", " ").split()
    unknown = [word for word in words if word not in EVENTS]
    if unknown:
        logger.warning("%s: unknown %s; known: %s", NOTIFY_ON_VARIABLE, unknown, ", ".join(EVENTS))
    return tuple(word for word in words if word in EVENTS) or DEFAULT_EVENTS


def payload(
    event: str, verdict: RunVerdict, statuses: Sequence[StepStatus], links: Mapping[str, str]
) -> dict[str, Any]:
    """The message: a text for people, and its facts as fields; secrets of locations are taken out."""
    pipeline = os.environ.get(PIPELINE_VARIABLE) or "pipeline"
    run_id = os.environ.get(RUN_ID_VARIABLE, "")
    problems = [{"step": p.step, "state": p.state, "reason": _short(p.reason)} for p in verdict.problems]
    evaluated, registered = _details(statuses, "evaluate"), _details(statuses, "register")
    pages = {"KFP run": page} | dict(links) if (page := kfp_tags().get("kfp.url")) else dict(links)
    lines = [f"*{_slack(pipeline)}* {_EVENT_TEXTS[event]} (run {_slack(run_id)})"]
    lines += [
        f"• *{_slack(p['step'])}* {p['state'].replace('_', ' ')}: {_slack(p['reason'])}" for p in problems
    ]
    if verdict.reason and not problems:
        lines.append(_slack(_short(verdict.reason)))
    if registered.get("registered"):
        lines.append(
            f"{_slack(str(registered['registered']))}: {_slack(_short(str(registered.get('verdict', ''))))}"
        )
    elif evaluated.get("verdict"):
        lines.append(_slack(_short(str(evaluated["verdict"]))))
    lines += [f"{label}: {_slack(redact(address))}" for label, address in pages.items()]
    fields = {
        "event": event,
        "pipeline": pipeline,
        "run_id": run_id,
        "outcome": verdict.outcome.value,
        "reason": verdict.reason,
        "problems": problems,
        "model": registered.get("registered"),
        "gate": registered.get("verdict") or evaluated.get("verdict"),
        "links": pages,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    return {"text": "\n".join(lines), "latentrec": redact_values(fields)}


def _post(url: str, body: Mapping[str, Any]) -> str:
    """Send; the reason why it did not arrive, or empty. An answer of 4xx is final, others are tried again."""
    import requests

    retries = Retries(attempts=ATTEMPTS, first_pause=PAUSE_S, longest_pause=PAUSE_S)
    while True:
        try:
            with _without_debug_logs(), requests.Session() as session:
                # A redirect could lead the message elsewhere; the answer's body is of no interest.
                answer = session.post(url, json=body, timeout=TIMEOUT_S, allow_redirects=False, stream=True)
                answer.close()
        except requests.RequestException as error:  # its text holds the address
            problem = type(error).__name__
        else:
            if answer.ok and not answer.is_redirect:
                return ""
            problem = f"HTTP {answer.status_code}"
            if answer.status_code < 500:
                return problem
        if not retries.wait():
            return problem


@contextmanager
def _without_debug_logs() -> Iterator[None]:
    """Keep the HTTP library from logging the address's path, which is the secret."""
    names = ("urllib3", "urllib3.connectionpool")
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _details(statuses: Sequence[StepStatus], step: str) -> dict[str, Any]:
    return next((status.details for status in statuses if status.step == step), {})


def _short(text: str) -> str:
    text = " ".join(printable(redact(text)).split())
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"


def _slack(text: str) -> str:
    """Nothing in it is markup: neither a link nor ``<!channel>``."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
