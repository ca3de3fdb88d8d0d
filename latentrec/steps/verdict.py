"""What a pipeline run came to: decided from the steps' statuses and from what KFP passes to its exit handler.

KFP's own state is not enough. Its exit handler gets ``COMPLETE`` (local runner and Vertex: ``SUCCEEDED``)
after success, ``RUNNING`` after a condition that did not trigger, and ``FAILED`` for a failure and for a
run that a user has terminated; it does not say which step failed. A step whose pod was lost leaves the
status "running".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from latentrec.steps.pods import PodFacts
from latentrec.steps.status import StepStatus

_COMPLETE = ("COMPLETE", "SUCCEEDED")
_CANCELED = ("CANCELED", "CANCELLED", "CANCELING")
_FAILED = ("FAILED", "ERROR")


class Outcome(StrEnum):
    """How a run ended, for its summary and the webhook."""

    SUCCEEDED = "succeeded"
    NOTHING_NEW = "nothing new"
    FAILED = "failed"
    TERMINATED = "terminated"


@dataclass(frozen=True)
class StepProblem:
    """A step that failed, or that began and never ended.

    Attributes:
        step: its name.
        state: ``failed``, ``bad_input``, ``interrupted`` or ``unfinished``.
        reason: why, as far as the step or its pod reports.
        at: UTC seconds when it ended; infinity where it is unknown.
    """

    step: str
    state: str
    reason: str
    at: float = math.inf


@dataclass(frozen=True)
class RunVerdict:
    """What a run came to, and the steps that went wrong, the first of them first."""

    outcome: Outcome
    problems: tuple[StepProblem, ...] = ()
    reason: str = ""

    @property
    def good(self) -> bool:
        """Whether the run did what it was to do; finding nothing new is that too."""
        return self.outcome in (Outcome.SUCCEEDED, Outcome.NOTHING_NEW)


def decide(
    state: str | None,
    statuses: Sequence[StepStatus],
    steps: Sequence[str],
    *,
    terminated: bool = False,
    pods: Mapping[str, PodFacts] | None = None,
) -> RunVerdict:
    """Decide what a run came to.

    Args:
        state: what KFP passed to the exit handler; ``None`` or empty where it passed nothing.
        statuses: of the steps that began; a step served from the cache has none.
        steps: names of the run's steps, in order.
        terminated: whether the workflow says that a user has terminated it.
        pods: what Kubernetes says of the steps' pods, where it could be asked.
    """
    state = (state or "").upper()
    if state in _COMPLETE:
        new = not nothing_new(statuses, steps)
        return RunVerdict(Outcome.SUCCEEDED if new else Outcome.NOTHING_NEW)
    problems = find_problems(statuses, pods or {}, terminated=terminated)
    if terminated or state in _CANCELED:
        return RunVerdict(Outcome.TERMINATED, problems, "a user terminated it")
    if problems or state in _FAILED:
        reason = "" if problems else "no step reports a failure; see the pods' events and logs"
        return RunVerdict(Outcome.FAILED, problems, reason)
    # KFP passed nothing that can be used: RUNNING, a word of a later version, or nothing at all.
    if nothing_new(statuses, steps):
        return RunVerdict(Outcome.NOTHING_NEW)
    done = {status.step for status in statuses if status.state == "succeeded"}
    last = steps[-1] if steps else None
    if done and (last is None or last in done):
        return RunVerdict(Outcome.SUCCEEDED)
    missing = next((step for step in reversed(steps) if step not in done), "any step")
    return RunVerdict(Outcome.FAILED, (), f"the run ended before {missing}")


def nothing_new(statuses: Sequence[StepStatus], steps: Sequence[str]) -> bool:
    """Whether a run without a failure stopped after data preparation because it found no new data.

    Data preparation may have come from the cache and report nothing; evaluation never does, so a run that was
    to stop without new data, and has not evaluated, has stopped.
    """
    found = {status.step: status for status in statuses}
    asked = found.get("preflight", StepStatus("preflight")).details.get("known_content")
    return bool(asked) and "evaluate" in steps and "evaluate" not in found


def find_problems(
    statuses: Sequence[StepStatus], pods: Mapping[str, PodFacts], *, terminated: bool = False
) -> tuple[StepProblem, ...]:
    """Every step that failed or never ended, and every pod that never got as far as a status."""
    found = []
    for status in statuses:
        pod = pods.get(status.step)
        if status.state in ("failed", "bad_input", "interrupted"):
            at = status.ended or math.inf
            found.append(StepProblem(status.step, status.state, status.error or "no reason given", at))
        elif status.state == "running":
            reason = pod.reason if pod else ""
            if not reason:
                reason = "stopped by the termination" if terminated else "killed, evicted or out of memory"
            found.append(
                StepProblem(status.step, "unfinished", reason, pod.ended if pod and pod.ended else math.inf)
            )
    begun = {status.step for status in statuses}
    for step, pod in pods.items():
        if step not in begun and pod.reason:
            found.append(StepProblem(step, "failed", pod.reason, pod.ended or math.inf))
    began = {status.step: status.started for status in statuses}
    return tuple(sorted(found, key=lambda problem: (problem.at, began.get(problem.step, math.inf))))
