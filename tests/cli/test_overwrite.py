"""A finished model is not replaced by mistake: on a terminal the command asks, a script replaces."""

import os
import pty
import select
from contextlib import contextmanager

import pytest

from latentrec.cli.training_command import confirm_replacing
from latentrec.core import UserError
from latentrec.storage import ArtifactWriter


@pytest.fixture
def finished(tmp_path):
    with ArtifactWriter(tmp_path / "model", "model", {}) as writer:
        (writer.path / "weights.safetensors").write_bytes(b"x")
    return str(tmp_path / "model")


@contextmanager
def terminal(monkeypatch):
    """Standard input and error are a terminal; yields the side that a person types on.

    Not a fixture: pytest puts its own streams back between a test's set-up and the test.
    """
    person, ours = pty.openpty()
    with os.fdopen(ours) as reads, os.fdopen(os.dup(ours), "w") as writes, monkeypatch.context() as patch:
        patch.setattr("sys.stdin", reads)
        patch.setattr("sys.stderr", writes)
        yield person
    os.close(person)


@pytest.mark.parametrize(("typed", "kept"), [("n", True), ("", True), ("y", False), ("YES", False)])
def test_on_a_terminal_the_command_asks(finished, monkeypatch, typed, kept):
    refused, shown = "", b""
    with terminal(monkeypatch) as person:
        os.write(person, f"{typed}\n".encode())
        try:
            confirm_replacing(finished, overwrite=False)
        except UserError as error:
            refused = str(error)
        while select.select([person], [], [], 0.2)[0]:
            shown += os.read(person, 1000)
    assert b"holds a finished model; replace it" in shown
    assert refused.endswith("kept as it is; choose another folder, or give --overwrite") == kept


def test_overwrite_and_an_empty_place_are_not_asked_about(finished, monkeypatch, tmp_path):
    with terminal(monkeypatch):
        confirm_replacing(finished, overwrite=True)
        confirm_replacing(str(tmp_path / "new"), overwrite=False)


def test_a_script_is_not_asked(finished, monkeypatch):
    with open(os.devnull) as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        confirm_replacing(finished, overwrite=False)
