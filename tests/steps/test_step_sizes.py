"""Sizes of the steps: a profile for laptops, what fits the pool's machine, and what is refused."""

import pytest

from latentrec.steps.step_sizes import GIB, MACHINES, PROFILES, Size, choose_sizes, quantity
from tests.errors import refused

L4 = {"gpu_count": "1", "gpu_type": "nvidia-l4"}


def test_without_an_accelerator_the_profile_is_taken_as_it_is():
    assert choose_sizes({"gpu_count": "0", "gpu_type": "nvidia-l4"}) == PROFILES["default"]


def test_small_runs_on_two_cores_and_eight_gib():
    for kind, size in choose_sizes({"resources": "small"}).items():
        assert quantity("cpu", size.cpu) <= 1, kind
        assert quantity("memory", size.memory) <= 4 * GIB, kind


def test_a_training_pod_is_made_to_fit_the_guide_s_machine():
    """An L4's g2-standard-8 cannot hold 8 CPUs and 32Gi: the node itself needs some."""
    assert choose_sizes(L4)["train"] == Size("7", "27Gi")
    assert choose_sizes({"gpu_count": "1", "gpu_type": "nvidia-a100-80gb"})["train"] == Size("8", "32Gi")


@pytest.mark.parametrize("given", [{"train_cpu": "8"}, {"train_memory": "32Gi"}])
def test_a_pod_that_no_node_of_the_pool_can_hold_is_refused(given):
    with refused("cluster.too_small", "g2-standard-8", "7", "27Gi"):
        choose_sizes(L4 | given)


def test_a_larger_machine_of_the_pool_is_named():
    given = L4 | {"train_cpu": "8", "train_memory": "32Gi"}
    assert choose_sizes(given | {"gpu_machine_type": "g2-standard-12"})["train"] == Size("8", "32Gi")
    with refused("config.bad_value", "1", "nvidia-l4", "g2-standard-8"):
        choose_sizes(given | {"gpu_machine_type": "a2-highgpu-1g"})


@pytest.mark.parametrize(
    "given",
    [{"gpu_node_selector": {"pool": "mine"}}, {"gpu_type": "nvidia-made-at-home"}],
)
def test_nodes_that_are_not_known_are_not_judged(given):
    assert choose_sizes(L4 | given | {"train_cpu": "64"})["train"].cpu == "64"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"train_memory": "32 GB"}, ("train_memory", "'32 GB'")),
        ({"train_cpu": "many"}, ("train_cpu", "'many'")),
        ({"resources": "tiny"}, ("resources", "'tiny'", "default", "small")),
    ],
)
def test_what_is_wrong_is_named(given, named):
    with refused("config.bad_value", *named):
        choose_sizes(given)


@pytest.mark.parametrize(("kind", "count"), [(kind, count) for kind in MACHINES for count in MACHINES[kind]])
def test_every_machine_of_the_table_leaves_room_for_a_pod(kind, count):
    for machine in MACHINES[kind][count]:
        assert 0 < machine.pod_cpus < machine.cpus
        assert 0 < machine.pod_memory_gib < machine.memory_gib


@pytest.mark.parametrize(
    ("text", "expected"), [("500m", 0.5), ("2", 2), ("1.5", 1.5), ("2Gi", 2 * GIB), ("1M", 1e6)]
)
def test_quantities_are_kubernetes_own(text, expected):
    assert quantity("x", text) == expected
