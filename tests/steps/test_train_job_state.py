"""What is said of a TrainJob, from the statuses that a real cluster gave it."""

import pytest

from latentrec.steps.train_job_state import state_of


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"active": 0, "ready": 0}, "starting"),
        ({"active": 1, "ready": 0}, "running"),
        ({"active": 0, "succeeded": 1}, "running"),  # as seen for the seconds before `Complete`
    ],
)
def test_nodes_that_have_ended_are_not_said_to_start(node, said):
    assert state_of({"status": {"jobsStatus": [{"name": "node", **node}]}}) == said
