"""Two nodes, each a network namespace of its own, train together through torchrun and gloo as pods would."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.fixtures.sequential_data import write_dataset
from tests.training.latentr3.first_gradients import gradient_difference, sharded_gradients
from tests.training.latentr3.latentr3_runs import weight_difference

ROOT = Path(__file__).resolve().parents[3]
MODULE = "tests.training.latentr3.two_nodes"
ADDRESSES = ("10.231.77.1", "10.231.77.2")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def nodes():
    """Names of two network namespaces that a cable joins, and nothing else."""
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and ip(8)")
    names = [f"lr-{os.getpid()}-{index}" for index in range(2)]
    made = []
    try:
        try:
            for name in names:
                ip("netns", "add", name)
                made.append(name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this machine makes no network namespaces: {error.stderr.strip()}")
        ends = [f"lr{os.getpid() % 100000}{side}" for side in "ab"]
        ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for name, end, address in zip(names, ends, ADDRESSES, strict=True):
            ip("link", "set", end, "netns", name)
            for command in (
                ("link", "set", end, "name", "eth0"),
                ("addr", "add", f"{address}/24", "dev", "eth0"),
                ("link", "set", "eth0", "up"),
                ("link", "set", "lo", "up"),
            ):
                ip("-n", name, *command)
        yield names
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_nodes")
    write_dataset(folder / "dataset", n_users=40, n_items=24, length=(4, 9))
    return folder


def environment(**more: str) -> dict[str, str]:
    plain = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "ACCELERATE_USE_CPU": "true"}
    return {**os.environ, **plain, "PYTHONPATH": str(ROOT), **more}


def on_nodes(names, given: dict, per_node: int = 1) -> list[int]:
    """Exit codes of torchrun on each node: what Kubeflow Trainer's pods run, with its variables."""
    started = []
    for index, name in enumerate(names):
        variables = {
            "PET_NNODES": str(len(names)),
            "PET_NPROC_PER_NODE": str(per_node),
            "PET_NODE_RANK": str(index),
            "PET_MASTER_ADDR": ADDRESSES[0],
            "PET_MASTER_PORT": "29400",
            "GLOO_SOCKET_IFNAME": "eth0",
        }
        inside = [sys.executable, "-m", "torch.distributed.run", "-m", MODULE, json.dumps(given)]
        started.append(
            subprocess.Popen(
                ["ip", "netns", "exec", name, *inside],
                env=environment(**variables),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    outputs = [process.communicate(timeout=900)[0] for process in started]
    codes = [process.returncode for process in started]
    print("\n".join(outputs)[-6000:])
    return codes


def alone(given: dict) -> None:
    command = [sys.executable, "-m", MODULE, json.dumps(given)]
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]


def work(shop: Path, name: str, sharding: str = "ddp", **more) -> dict:
    options = {"sharding": sharding}
    return {"dataset": str(shop / "dataset"), "output": str(shop / name), "options": options, **more}


def losses(folder: Path) -> dict[int, float]:
    return {int(step): value for step, value in json.loads((folder / "losses.json").read_text()).items()}


def whole_run(nodes, shop: Path, sharding: str) -> Path:
    """Folder of the same training by two nodes that nobody disturbs; made once."""
    given = work(shop, f"two-{sharding}", sharding)
    folder = Path(given["output"])
    if not (folder / "model").exists():
        assert on_nodes(nodes, given) == [0, 0]
    return folder


@pytest.fixture(scope="module")
def one(shop):
    """The same training by one process."""
    alone(work(shop, "one"))
    return shop / "one"


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_two_nodes_train_as_one_process(nodes, shop, one, sharding):
    two = whole_run(nodes, shop, sharding)
    mine, theirs = losses(one), losses(two)
    assert mine.keys() == theirs.keys()
    loss = max(abs(mine[step] - theirs[step]) for step in mine)
    gradient, largest = gradient_difference(one, two)
    weights, _ = weight_difference(one / "model", two / "model")
    print(f"{sharding}: loss {loss:.1e}, gradient {gradient:.1e} of {largest:.1e}, weights {weights:.1e}")
    assert loss < 1e-5
    assert gradient < 1e-4
    assert largest > 1e-3, "gradients that are nothing are equal too"
    sharded, gradients = sharded_gradients(two)
    assert sharded == (gradients if sharding == "fsdp" else 0)
    assert weights < 2e-4


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_a_node_killed_in_training_costs_no_result(nodes, shop, one, sharding):
    """Both pods start again, as JobSet restarts them, and go on from the last checkpoint."""
    flag = shop / f"killed-{sharding}"
    store = str(shop / f"store-{sharding}")
    given = work(shop, f"lost-{sharding}", sharding, checkpoints=store, kill=[1, 3, str(flag)])
    assert all(code != 0 for code in on_nodes(nodes, given))
    assert flag.exists()
    assert not (Path(given["output"]) / "model").exists()
    assert on_nodes(nodes, given) == [0, 0]
    assert json.loads((Path(given["output"]) / "resumed.json").read_text()) == [2.0]
    weights, _ = weight_difference(one / "model", Path(given["output"]) / "model")
    print(f"killed and resumed: weights {weights:.1e}")
    assert weights < 2e-4
    whole = whole_run(nodes, shop, sharding)
    uninterrupted, _ = weight_difference(whole / "model", Path(given["output"]) / "model")
    assert uninterrupted == 0.0, "the same steps with the same numbers"


@pytest.fixture(scope="module")
def stopped(nodes, shop):
    """Gives the checkpoints of two nodes that were told to stop after step 3; made once for a sharding."""

    def checkpoints(sharding: str) -> Path:
        store = shop / f"stopped-{sharding}"
        if not store.exists():
            given = work(shop, f"half-{sharding}", sharding, checkpoints=str(store), stop=3)
            on_nodes(nodes, given)
            assert not (Path(given["output"]) / "model").exists()
        return store

    return checkpoints


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
@pytest.mark.parametrize("processes", [1, 4])
def test_a_checkpoint_of_two_processes_resumes_on_another_number(
    nodes, shop, one, stopped, sharding, processes
):
    name = f"moved-{sharding}-{processes}"
    store = shop / f"store-{name}"
    shutil.copytree(stopped(sharding), store)
    given = work(shop, name, sharding, checkpoints=str(store))
    if processes == 1:
        alone(given)
    else:
        assert on_nodes(nodes, given, per_node=2) == [0, 0]
    assert json.loads((Path(given["output"]) / "resumed.json").read_text()) == [3.0]
    weights, _ = weight_difference(one / "model", Path(given["output"]) / "model")
    print(f"{sharding}, {processes} processes after two: weights {weights:.1e}")
    assert weights < 2e-4
    assert torch.isfinite(torch.tensor([*losses(Path(given["output"])).values()])).all()
