"""The image builds: what can be held without building them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from components.images import IMAGES
from pipeline.task_settings import USER

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "docker/Dockerfile").read_text(encoding="utf-8")
STAGES = {
    match.group(2): (match.group(1), match.group(3))
    for match in re.finditer(
        r"^FROM (\S+) AS (\S+)\n+(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL
    )
}
REQUIREMENTS = ROOT / "docker/requirements"
LOCKS = {name: "train" if name in ("preflight", "evaluate") else name for name in IMAGES}


@pytest.mark.parametrize("name", IMAGES)
def test_every_image_is_a_target_that_gets_its_own_requirements(name):
    base, body = STAGES[name]
    assert base == ("runtime-${TORCH_VARIANT}" if name in ("train", "evaluate") else "runtime-cpu")
    built = "train" if name == "register" else LOCKS[name]
    assert f"--from=build-{built} /venv /venv" in body
    assert f"docker/requirements/{LOCKS[name]}.txt" in STAGES[f"build-{LOCKS[name]}"][1]


def test_registering_adds_to_the_layer_of_training_s_packages():
    """Four images share it; what the build of the fifth stage has besides lies in a layer of its own."""
    assert (
        "COPY --from=build-train /venv /venv\nCOPY --from=build-register /more /\n" in STAGES["register"][1]
    )
    assert STAGES["build-register"][0] == "build-train"


def test_registering_pins_all_that_training_does_and_in_the_same_versions():
    """Else its build would exchange a file of the layer below, and stops."""
    pins = []
    for name in ("train", "register"):
        text = (REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8")
        pins.append(dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", text, re.MULTILINE)))
    below, above = pins
    assert below.items() <= above.items(), dict(below.items() - above.items())


def test_an_image_without_cuda_sees_no_device():
    """Its libraries stand in for CUDA's: on a node with GPUs, too, torch must not try one."""
    assert "ENV CUDA_VISIBLE_DEVICES=-1" in STAGES["runtime-cpu"][1]
    assert "CUDA_VISIBLE_DEVICES" not in STAGES["runtime"][1] + STAGES["runtime-cuda"][1]
    assert {STAGES[name][0] for name in ("runtime-cpu", "runtime-cuda")} == {"runtime"}
    install = (ROOT / "docker/install.sh").read_text(encoding="utf-8")
    assert re.search(
        r'if \[ "\$variant" = cpu \]; then\n    /venv/bin/python /without_cuda/without_cuda.py', install
    )


def test_images_run_as_the_numeric_user_that_the_pods_ask_for():
    assert f"USER {USER}:{USER}" in STAGES["runtime"][1]


def test_the_final_layers_run_nothing():
    """So nothing is installed there: neither a compiler nor pip."""
    for name in ("runtime", "runtime-cpu", "runtime-cuda", "mlflow", *IMAGES):
        assert not re.search(r"^RUN ", STAGES[name][1], re.MULTILINE), name


def test_the_base_image_is_an_argument_with_a_tag():
    assert re.search(r"^ARG BASE_IMAGE=\S+:\S+$", DOCKERFILE, re.MULTILINE)
    assert ":latest" not in DOCKERFILE


@pytest.mark.parametrize("name", IMAGES)
def test_requirements_are_locked_by_hash_and_leave_torch_to_the_builder(name):
    text = (REQUIREMENTS / f"{LOCKS[name]}.txt").read_text(encoding="utf-8")
    entries = re.findall(r"^([A-Za-z0-9_.-]+)==", text, re.MULTILINE)
    blocks = re.split(r"^(?=[A-Za-z0-9_.-]+==)", text, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in block for block in blocks)
    assert "torch" not in entries
    assert "kfp" in entries, "the compiled command runs kfp.dsl.executor_main"


def test_data_preparation_s_image_carries_no_training_library():
    text = (REQUIREMENTS / "data-prep.txt").read_text(encoding="utf-8")
    assert not re.search(r"^(transformers|trl|peft|accelerate|safetensors)==", text, re.MULTILINE)
    assert "TORCH_VERSION" not in STAGES["build-data-prep"][1]


def test_data_preparation_s_door_opens_without_training_libraries():
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'trl', 'peft', 'accelerate', 'safetensors'):\n"
        "    sys.modules[name] = None\n"
        "from latentrec.data import prepare\n"
        "from latentrec.steps.runtime import open_step\n"
        "from latentrec.steps.parameters import make_config\n"
        "make_config('data_prep', {'reviews': ('r.json',)})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def build(
    tmp_path: Path, *words: str, engine: str = "docker", **environment: str
) -> subprocess.CompletedProcess:
    """Run the build with an engine that only writes down what it is asked.

    After a push, docker tells the registry's digest when the image is inspected; podman, a wrong one.
    """
    program = tmp_path / "bin" / engine
    program.parent.mkdir()
    inspected = "a" if engine == "docker" else "b"
    program.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {tmp_path}/calls\n'
        'if [ "$1" = inspect ]; then for last; do :; done\n'
        f'echo "${{last%:*}}@sha256:{inspected * 64}"; fi\n'
        f'if [ "$1 $2" = "push --digestfile" ]; then printf sha256:{"a" * 64} > "$3"; fi\n'
    )
    program.chmod(0o755)
    settings = {"ENGINE": engine, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    settings |= {
        "IMAGE_REGISTRY": "eu.example/r",
        "IMAGE_TAG": "v1",
        "IMAGE_LOCK": str(tmp_path / "lock.json"),
    }
    return subprocess.run(
        [str(ROOT / "docker/build.sh"), *words],
        env={**os.environ, **settings, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_build_asks_for_every_target_under_the_name_that_pipelines_use(tmp_path):
    done = build(tmp_path)
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    built = [line for line in calls if line.startswith("build ")]
    for name, line in zip((*IMAGES, "mlflow"), built, strict=True):
        assert f"--target {name} --tag eu.example/r/{name}:v1" in line
        assert re.search(r"--build-arg GIT_SHA=[0-9a-f]{40}", line)
        assert (
            f'image.title="latentrec-{name}" org.opencontainers.image.revision="${{GIT_SHA}}"'
            in STAGES[name][1]
        )
    assert not any(line.startswith("push ") for line in calls)


def test_only_gpu_steps_images_are_built_with_cuda(tmp_path):
    assert build(tmp_path, TORCH_VARIANT="cuda").returncode == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    variants = {
        match.group(1): match.group(2)
        for match in (re.search(r"--target (\S+) .*TORCH_VARIANT=(\w+)", line) for line in calls)
        if match
    }
    assert (variants["train"], variants["evaluate"]) == ("cuda", "cuda")
    assert (variants["preflight"], variants["register"]) == ("cpu", "cpu")


def test_a_build_takes_the_machine_s_pip_configuration_along(tmp_path):
    """Without a word of the user: indexes and folders of wheels, from pip's files or its environment."""
    wheels, index = tmp_path / "wheels", tmp_path / "index" / "simple"
    for folder in (wheels, index):
        folder.mkdir(parents=True)
    settings = {"PIP_FIND_LINKS": str(wheels), "PIP_EXTRA_INDEX_URL": index.as_uri(), "PIP_TIMEOUT": "7"}
    command = [sys.executable, str(ROOT / ".ci/pip_conf.py"), str(tmp_path / "pip.conf")]
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=True)
    written = (tmp_path / "pip.conf").read_text().splitlines()
    assert f"find-links = {wheels}" in written
    assert f"extra-index-url = {index.as_uri()}" in written
    assert not any("timeout" in line for line in written)
    assert done.stdout.splitlines() == sorted([str(index.parent), str(wheels)])


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_push_writes_the_lock_that_a_release_compiles_from(tmp_path, monkeypatch, engine):
    from components.images import image

    done = build(tmp_path, "--push", engine=engine)
    assert done.returncode == 0, done.stderr
    for name, value in (("RELEASE", "1"), ("IMAGE_REGISTRY", "eu.example/r")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("IMAGE_LOCK", str(tmp_path / "lock.json"))
    for name in IMAGES:
        assert image(name) == f"eu.example/r/{name}@sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        ((), {"IMAGE_TAG": "latest"}, "IMAGE_TAG is 'latest'"),
        (("--push",), {"IMAGE_REGISTRY": ""}, "nothing can be pushed"),
        ((), {"engine": "docker", "ENGINE": "no-such-engine"}, "which is not on the PATH"),
    ],
)
def test_a_build_that_cannot_end_well_is_refused_first(tmp_path, words, environment, message):
    done = build(tmp_path, *words, **environment)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "calls").exists()


def ci_containers(
    tmp_path: Path, *, engine: str, make: str = "exit 0", free: int = 16
) -> subprocess.CompletedProcess:
    """CI's container step with an engine and a ``make`` that are shell scripts of these bodies."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, body in (("podman", engine), ("make", make), ("df", f"echo Avail; echo {free}G")):
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    environment = {**os.environ, "ENGINE": "podman", "PATH": f"{folder}:{os.environ['PATH']}"}
    environment.pop("BASE_IMAGE", None)
    return subprocess.run(
        [str(ROOT / ".ci/containers")], env=environment, capture_output=True, text=True, check=False
    )


def test_ci_says_so_where_containers_do_not_run(tmp_path):
    done = ci_containers(tmp_path, engine='[ "$1" != run ] || exit 125', make="exit 1")
    assert done.returncode == 0
    assert "SKIPPED: python:3.11-slim does not run on this machine" in done.stdout


def test_ci_says_so_where_the_images_do_not_fit(tmp_path):
    done = ci_containers(tmp_path, engine="exit 0", make="exit 1", free=15)
    assert done.returncode == 0
    assert "SKIPPED: / has 15 GB left; the images and their build need 16" in done.stdout


def test_ci_says_so_where_time_does_not_suffice(tmp_path):
    done = ci_containers(tmp_path, engine="exit 0", make="exit 124")
    assert done.returncode == 0
    assert "SKIPPED: 45 minutes were not enough" in done.stdout


def test_ci_says_so_where_there_is_no_engine(tmp_path, monkeypatch):
    monkeypatch.setenv("ENGINE", "no-such-engine")
    done = subprocess.run([str(ROOT / ".ci/containers")], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "SKIPPED: no podman or docker here" in done.stdout


@pytest.mark.parametrize("code", [0, 1])
def test_ci_takes_the_container_tests_at_their_word_where_containers_run(tmp_path, code):
    make = f'echo "asked: $1 on $BASE_IMAGE"; exit {code}'
    done = ci_containers(tmp_path, engine="exit 0", make=make)
    assert done.returncode == code
    assert "asked: test-containers on python:3.11-slim" in done.stdout
    assert "SKIPPED" not in done.stdout
