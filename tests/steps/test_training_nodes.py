"""How many nodes a training step may have, and the name of its TrainJob."""

import pytest

from latentrec.steps.node_pools import choose_pool
from latentrec.steps.parameters import check_parameters
from latentrec.steps.step_sizes import choose_sizes
from latentrec.steps.train_job import job_name
from latentrec.steps.training_nodes import choose_nodes
from tests.errors import refused


@pytest.mark.parametrize(
    ("system", "nodes", "expected"),
    [
        ("lares", 2, "1 to 1"),
        ("reczero", 2, "1 to 1"),
        ("latentr3", 65, "1 to 64"),
        ("latentr3", "many", "1 to 64"),
    ],
)
def test_a_number_of_nodes_that_cannot_be_is_refused(system, nodes, expected):
    with refused("config.bad_value", "gpu_nodes", str(nodes), expected, system):
        choose_nodes({"system": system, "gpu_nodes": nodes}, choose_pool({}), choose_sizes({})["train"])


def test_a_batch_is_held_against_all_processes_of_all_nodes():
    given = {"customer_reviews": "x", "gpu_count": "2", "gpu_nodes": 3, "sft_batch_size": 128}
    with refused("config.invalid", "sft_batch_size", "128", "6 processes"):
        check_parameters("latentr3", given)


def test_a_job_has_one_name_in_all_attempts_of_a_step_and_another_elsewhere():
    names = [
        job_name("r", "stage_2", ["a"]),
        job_name("r", "stage_2", ["b"]),
        job_name("s", "stage_2", ["a"]),
    ]
    assert names[0] == job_name("r", "stage_2", ["a"])
    assert len(set(names)) == 3
    assert all(len(name) <= 45 for name in [*names, job_name("r", "x" * 80, [])]), "Kubernetes adds to it"
