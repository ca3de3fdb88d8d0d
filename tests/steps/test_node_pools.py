"""Node labels and tolerations of a run's GPU steps."""

import pytest

from latentrec.steps.node_pools import choose_pool
from tests.errors import refused

GPU = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
SPOT = {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}


def test_one_accelerator_goes_to_its_pool():
    pool = choose_pool({"gpu_count": "1", "gpu_type": "nvidia-l4"})
    assert pool.node_selector == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert pool.tolerations == [GPU]


def test_spot_adds_its_label_and_its_toleration():
    pool = choose_pool({"gpu_count": 1, "gpu_type": "nvidia-l4", "gpu_spot": "True"})
    assert pool.node_selector["cloud.google.com/gke-spot"] == "true"
    assert pool.tolerations == [GPU, SPOT]


def test_without_accelerators_any_node_will_do():
    pool = choose_pool({"gpu_count": "0", "gpu_type": "nvidia-l4", "gpu_spot": "False"})
    assert (pool.node_selector, pool.tolerations) == ({}, [])


def test_several_accelerators_are_for_steps_that_can_share_their_work():
    pool = choose_pool({"system": "latentr3", "gpu_count": 4, "gpu_type": "nvidia-l4"})
    assert pool.node_selector == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert pool.one_gpu == "1"
    assert choose_pool({"system": "latentr3", "gpu_count": 0}).one_gpu == "0"


def test_labels_given_by_hand_replace_and_tolerations_add():
    more = {"key": "team", "operator": "Exists"}
    pool = choose_pool(
        {"gpu_count": 1, "gpu_type": "x", "gpu_node_selector": {"pool": "a"}, "gpu_tolerations": [more]}
    )
    assert pool.node_selector == {"pool": "a"}
    assert pool.tolerations == [GPU, more]


@pytest.mark.parametrize(
    ("given", "code", "named"),
    [
        ({"system": "lares", "gpu_count": 9}, "config.bad_value", ("gpu_count", "9", "0 to 8", "lares")),
        ({"system": "latentr3", "gpu_count": 16}, "config.bad_value", ("gpu_count", "16", "0 to 8")),
        ({"gpu_count": 1}, "config.missing_value", ("gpu_type", "gpu_count=1")),
        (
            {"gpu_count": 1, "gpu_type": "nvidia-a100-80g"},
            "config.bad_value",
            ("gpu_type", "'nvidia-a100-80g'", "nvidia-a100-80gb", "gpu_node_selector"),
        ),
        ({"gpu_node_selector": {"a": 1}}, "config.bad_value", ("gpu_node_selector", "{'a': 1}")),
        ({"gpu_tolerations": {"key": "a"}}, "cluster.bad_toleration", ("{'key': 'a'}",)),
        ({"gpu_tolerations": [{"kee": "a"}]}, "cluster.bad_toleration", ("'kee'", "key")),
        (
            {"gpu_tolerations": [{"key": "a", "toleration_seconds": 3}]},
            "cluster.bad_toleration",
            ("'toleration_seconds'", "tolerationSeconds"),
        ),
        (
            {"gpu_tolerations": [{"key": "a", "effect": "NoRun"}]},
            "cluster.bad_toleration",
            ("effect", "'NoRun'", "NoSchedule"),
        ),
        (
            {"gpu_tolerations": [{"key": "a", "operator": "In"}]},
            "cluster.bad_toleration",
            ("operator", "'In'", "Exists", "Equal"),
        ),
        (
            {"gpu_tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]},
            "cluster.bad_toleration",
            ("Exists", "'b'"),
        ),
        ({"gpu_tolerations": [{"effect": "NoExecute"}]}, "cluster.bad_toleration", ("operator", "Exists")),
        (
            {"gpu_tolerations": [{"key": "a", "tolerationSeconds": 5}]},
            "cluster.bad_toleration",
            ("tolerationSeconds", "NoExecute"),
        ),
        (
            {"gpu_tolerations": [{"key": "a", "effect": "NoExecute", "tolerationSeconds": "5m"}]},
            "cluster.bad_toleration",
            ("tolerationSeconds", "'5m'"),
        ),
    ],
)
def test_what_is_wrong_is_named(given, code, named):
    with refused(code, *named):
        choose_pool(given)


def test_how_long_a_pod_stays_on_a_tainted_node_reaches_kubernetes_by_its_own_name():
    """KFP reads the list as Kubernetes' own JSON and leaves out, without a word, what it does not know."""
    given = {"key": "spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300.0}
    (found,) = choose_pool({"gpu_tolerations": [given]}).tolerations
    assert found == {**given, "tolerationSeconds": 300}
    assert isinstance(found["tolerationSeconds"], int)
