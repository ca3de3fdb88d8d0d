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
        ("lares", 65, "1 to 64"),
        ("reczero", 65, "1 to 64"),
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


def test_a_batch_is_held_against_nodes_without_accelerators_too():
    given = {"customer_reviews": "x", "gpu_count": "0", "gpu_nodes": 3, "sft_batch_size": 128}
    with refused("config.invalid", "sft_batch_size", "128", "3 processes"):
        check_parameters("latentr3", given)
    check_parameters("latentr3", given | {"gpu_nodes": 1})


@pytest.mark.parametrize(
    ("system", "given", "named"),
    [
        ("reczero", {"rating_grpo.prompts_per_step": 1}, "rating_grpo"),
        ("recone", {"cold_start_sft.batch_size": 16}, "cold_start_sft"),
        ("lares", {"spt.batch_size": 5}, "spt.batch_size is 5"),
        ("lares", {"rpt.batch_size": 5}, "rpt.batch_size is 5"),
    ],
)
def test_the_other_systems_batches_are_too(system, given, named):
    parameters = {"customer_reviews": "x", "gpu_count": "3", "gpu_nodes": 2, "gpu_type": "nvidia-l4"}
    with refused("config.invalid", named, "6 processes"):
        check_parameters(system, parameters, given)
    check_parameters(system, parameters | {"gpu_count": "2", "gpu_nodes": 2}, {})


def test_a_job_has_one_name_in_all_attempts_of_a_step_and_another_elsewhere():
    names = [
        job_name("r", "stage_2", ["a"]),
        job_name("r", "stage_2", ["b"]),
        job_name("s", "stage_2", ["a"]),
    ]
    assert names[0] == job_name("r", "stage_2", ["a"])
    assert len(set(names)) == 3
    assert all(len(name) <= 45 for name in [*names, job_name("r", "x" * 80, [])]), "Kubernetes adds to it"
