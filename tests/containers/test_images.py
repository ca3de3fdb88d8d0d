"""The images themselves: pushed and pinned by digest, labels, user, and nothing that a step does not need."""

import json
import os
import re
import shutil
import subprocess

import pytest
from packaging.utils import canonicalize_name

from tests.containers.conftest import IMAGE_NAMES, image_named
from tests.fakes.oci_registry import Registry
from tests.pipeline.runs import ROOT
from tests.test_dependencies import locked, needed

pytestmark = pytest.mark.containers


def test_pushed_image_is_the_one_that_its_digest_in_the_lock_names(world, tmp_path):
    """`make push` to a real registry's protocol; a pod pulls what the lock says."""
    registry = Registry(tmp_path).start()
    repository, tag = f"{registry.host}/latentrec", os.environ["IMAGE_TAG"]
    lock = tmp_path / "images.lock.json"
    settings = {"IMAGE_REGISTRY": repository, "IMAGES": "data-prep", "IMAGE_LOCK": str(lock)}
    if shutil.which("podman") and os.environ.get("ENGINE", "podman") == "podman":
        settings["PUSH_ARGS"] = "--tls-verify=false"
    done = subprocess.run(
        ["docker/build.sh", "--push"],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    try:
        assert done.returncode == 0, done.stderr[-3000:]
        digest = json.loads(lock.read_text())["digests"]["data-prep"]
        _, manifest = registry.manifests[("latentrec/data-prep", digest)]
        assert registry.manifests[("latentrec/data-prep", tag)][1] == manifest
        for part in (json.loads(manifest)["config"], *json.loads(manifest)["layers"]):
            assert registry.blob(part["digest"]).stat().st_size == part["size"]
        world.client.images.remove(f"{repository}/data-prep:{tag}")
    finally:
        registry.stop()


@pytest.mark.parametrize("name", [*IMAGE_NAMES, "mlflow"])
def test_image_carries_labels_and_a_numeric_user(world, name):
    image = world.client.images.get(image_named(name))
    labels = image.labels
    assert labels["org.opencontainers.image.title"] == f"latentrec-{name}"
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", labels["org.opencontainers.image.revision"])
    assert image.attrs["Config"]["User"] == "10001:10001"


def test_data_preparation_s_image_has_no_training_library(world):
    code = (
        "import importlib.util as u\n"
        "print([n for n in ('torch', 'transformers', 'trl', 'peft', 'accelerate') if u.find_spec(n)])"
    )
    told = world.client.containers.run(image_named("data-prep"), ["python3", "-c", code], remove=True)
    assert told.decode().strip() == "[]"


@pytest.mark.parametrize("name", [*IMAGE_NAMES, "mlflow"])
def test_an_image_holds_the_packages_of_its_lock_and_no_others(world, name):
    """What the locks hold is compared with what code imports in tests/test_dependencies.py."""
    code = "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"
    printed = world.client.containers.run(image_named(name), ["python3", "-c", code], remove=True)
    held = {canonicalize_name(one) for one in printed.decode().split()}
    locks = {"data-prep": ["data-prep"], "mlflow": ["mlflow"], "register": ["train", "register"]}
    named = set().union(*(locked(lock) for lock in locks.get(name, ["train"])))
    assert named - held == set()
    assert held - named <= (set() if name in ("data-prep", "mlflow") else needed({"torch"}))


@pytest.mark.parametrize("name", ["preflight", "train", "evaluate", "register"])
def test_a_cpu_image_carries_no_cuda_and_computes(world, name):
    """Neither its packages nor their metadata; torch, and what trains with it, works on what is left."""
    code = (
        "import importlib.metadata as m, json, torch, transformers, trl\n"
        "from pathlib import Path\n"
        "tops = ('nvidia', 'cuda', 'triton')\n"
        "names = sorted(d.name for d in m.distributions() if d.name.startswith(tops))\n"
        "folder = Path(torch.__file__).parents[1]\n"
        "parts = [p for top in tops for p in (folder / top).rglob('*') if p.is_file()]\n"
        "x = torch.ones(2, 2, requires_grad=True); (x @ x).sum().backward()\n"
        "size = sum(p.stat().st_size for p in parts)\n"
        "print(json.dumps([names, size, x.grad.tolist(), torch.cuda.is_available()]))\n"
    )
    told = world.client.containers.run(image_named(name), ["python3", "-c", code], remove=True)
    names, size, gradient, device = json.loads(told.decode().strip().splitlines()[-1])
    assert names == []
    assert size < 4e6
    assert gradient == [[4.0, 4.0], [4.0, 4.0]]
    assert device is False


def test_the_training_images_share_the_layer_of_their_packages(world):
    layers = {
        name: world.client.images.get(image_named(name)).attrs["RootFS"]["Layers"]
        for name in ("preflight", "train", "evaluate", "register")
    }
    shared = set.intersection(*(set(found) for found in layers.values()))
    assert len(shared) >= 2, layers  # the base's and the packages'
