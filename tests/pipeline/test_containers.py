"""Steps in containers, as far as it can be held without an engine; the rest is in tests/containers."""

import os

import pytest

from pipeline import containers
from pipeline.containers import check_images, hardened, images_of, passed_on, run_and_wait
from tests.errors import refused


class Container:
    """A container that prints, ends, and is gone when it has been removed."""

    def __init__(self, code: int) -> None:
        self.code, self.removed = code, False

    def logs(self, **_):
        yield "hällo\n".encode()

    def wait(self):
        assert not self.removed
        return {"StatusCode": self.code}

    def remove(self, force):
        self.removed = force


class Engine:
    """The part of a docker client that a run uses."""

    def __init__(self, code: int = 0, images: tuple[str, ...] = ()) -> None:
        self.container, self.known = Container(code), images
        self.containers = self.images = self

    def run(self, **arguments):
        assert not arguments.get("auto_remove"), "the exit code would be lost"
        self.arguments = arguments
        return self.container

    def get(self, name):
        import docker.errors

        if name not in self.known:
            raise docker.errors.ImageNotFound(name)


@pytest.mark.parametrize("code", [0, 2, 137])
def test_a_container_s_exit_code_is_the_step_s(code, capsys):
    engine = Engine(code)
    assert run_and_wait(engine, "image", ["sh"], {}, **hardened("10001:10001")) == code
    assert engine.container.removed
    assert "hällo" in capsys.readouterr().out


def test_a_container_is_removed_when_the_run_is_broken_off():
    engine = Engine()

    def broken_off(**_):
        raise KeyboardInterrupt

    engine.container.logs = broken_off
    with pytest.raises(KeyboardInterrupt):
        run_and_wait(engine, "image", ["sh"], {})
    assert engine.container.removed


def test_containers_run_locked_down():
    arguments = hardened("10001:10001")
    assert arguments["read_only"] is True
    assert set(arguments["tmpfs"]) == {"/tmp"}
    assert arguments["cap_drop"] == ["ALL"]
    assert arguments["security_opt"] == ["no-new-privileges"]
    assert not containers.container_user().startswith("0:")


def test_steps_see_the_run_s_surroundings_and_nothing_else():
    given = {
        "MLFLOW_TRACKING_URI": "u",
        "LATENTREC_RUN_ID": "r",
        "HOME": "/root",
        "AWS_SECRET": "s",
        "PATH": "p",
    }
    assert passed_on(given) == {"MLFLOW_TRACKING_URI": "u", "LATENTREC_RUN_ID": "r"}


def test_images_that_are_missing_are_named_before_anything_runs():
    needed = sorted(images_of("lares"))
    assert [name.rpartition("/")[2].partition(":")[0] for name in needed] == [
        "data-prep", "evaluate", "preflight", "register", "train",
    ]  # fmt: skip
    check_images("lares", Engine(images=tuple(needed)))
    with refused("containers.no_image"):
        check_images("lares", Engine(images=tuple(name for name in needed if "/train:" not in name)))


def test_without_an_engine_the_user_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with refused("containers.no_engine"), containers.engine():
        pass
    assert os.environ["DOCKER_HOST"].endswith("none.sock")
