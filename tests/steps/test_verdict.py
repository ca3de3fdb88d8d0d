"""What a run came to: every word that KFP has for it, with and without steps that failed or never ended."""

import pytest

from latentrec.steps.pods import PodFacts
from latentrec.steps.status import StepStatus
from latentrec.steps.verdict import Outcome, decide

STEPS = ["preflight", "data_prep", "sft", "grpo", "evaluate", "register"]


def status(step: str, state: str = "succeeded", started: float = 0.0, ended: float | None = None, **details):
    error = None if state in ("succeeded", "running") else "its reason"
    return StepStatus(step, state, started, ended, error=error, details=details)


WHOLE = [status(step) for step in STEPS]
FROM_THE_CACHE = [status(step) for step in ("preflight", "evaluate", "register")]
NOTHING_NEW = [status("preflight", known_content="abc"), status("data_prep")]
FAILED = [*WHOLE[:2], status("sft", "failed", 2.0, 9.0)]
LOST = [*WHOLE[:2], status("sft", "running", 2.0)]
STATES = ("COMPLETE", "SUCCEEDED", "RUNNING", "FAILED", "CANCELED", None)


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (WHOLE, ("succeeded", "succeeded", "succeeded", "failed", "terminated", "succeeded")),
        (FROM_THE_CACHE, ("succeeded", "succeeded", "succeeded", "failed", "terminated", "succeeded")),
        (NOTHING_NEW, ("nothing new", "nothing new", "nothing new", "failed", "terminated", "nothing new")),
        # A status that could not be written again after a retry does not outweigh KFP's word.
        (FAILED, ("succeeded", "succeeded", "failed", "failed", "terminated", "failed")),
        (LOST, ("succeeded", "succeeded", "failed", "failed", "terminated", "failed")),
        ([], ("succeeded", "succeeded", "failed", "failed", "terminated", "failed")),
    ],
    ids=["whole", "cached", "nothing-new", "failed", "lost", "no-status"],
)
def test_outcome_by_statuses_and_kfp_s_word(statuses, expected):
    found = tuple(str(decide(state, statuses, STEPS).outcome) for state in STATES)
    assert found == expected


def test_a_word_of_a_later_version_is_judged_by_the_steps():
    assert decide("QUITE_DONE", WHOLE, STEPS).outcome is Outcome.SUCCEEDED
    assert decide("QUITE_DONE", LOST, STEPS).outcome is Outcome.FAILED


@pytest.mark.parametrize(("outcome", "good"), zip(Outcome, (True, True, False, False), strict=True))
def test_nothing_new_is_a_success(outcome, good):
    from latentrec.steps.verdict import RunVerdict

    assert RunVerdict(outcome).good is good


def test_every_step_that_began_and_did_not_end_is_named_the_first_failure_first():
    statuses = [
        *WHOLE[:2],
        status("sft", "running", started=2.0),
        status("backbone", "failed", started=3.0, ended=50.0),
        status("sasrec", "failed", started=4.0, ended=30.0),
    ]
    found = decide("FAILED", statuses, STEPS, terminated=True)
    assert found.outcome is Outcome.TERMINATED
    assert [(p.step, p.state) for p in found.problems] == [
        ("sasrec", "failed"),
        ("backbone", "failed"),
        ("sft", "unfinished"),
    ]
    assert found.problems[-1].reason == "stopped by the termination"


def test_kubernetes_knows_when_and_why_a_pod_was_lost():
    statuses = [*LOST, status("backbone", "failed", started=3.0, ended=50.0)]
    pods = {"sft": PodFacts("out of memory (limit 4Gi): OOMKilled", 20.0), "data_prep": PodFacts("", 1.0)}
    found = decide("FAILED", statuses, STEPS, pods=pods).problems
    assert [(p.step, p.reason) for p in found] == [
        ("sft", "out of memory (limit 4Gi): OOMKilled"),
        ("backbone", "its reason"),
    ]


def test_a_pod_that_never_got_as_far_as_a_status_is_named():
    pods = {"sft": PodFacts("no node took its pod: 0/1 nodes are available: Insufficient cpu")}
    (problem,) = decide("FAILED", WHOLE[:2], STEPS, pods=pods).problems
    assert (problem.step, problem.state) == ("sft", "failed")
    assert "Insufficient cpu" in problem.reason
