"""Any training state comes back exactly from safetensors and JSON; generators go on where they stood."""

import random
import signal
import time

import numpy as np
import pytest
import torch

from latentrec.training.common.checkpointing import (
    Checkpoints,
    Interruption,
    load_state,
    restore_rng_state,
    rng_state,
    save_state,
)


def test_nested_state_comes_back_exactly(tmp_path):
    state = {
        0: {"step": torch.tensor(3.0), "names": ("a", 1, None), "flags": [True, 2.5, {"x": torch.arange(3)}]},
        "bf16": torch.randn(4, 3).bfloat16(),
        "view": torch.arange(12).view(3, 4).T,
        "empty": [],
        "tiny": 1e-300,
    }
    save_state(tmp_path, "state", state)
    found = load_state(tmp_path, "state")
    assert list(found) == list(state)
    assert found[0]["names"] == ("a", 1, None)
    assert found[0]["flags"][:2] == [True, 2.5]
    assert found[0]["flags"][2]["x"].equal(torch.arange(3))
    assert found["bf16"].dtype == torch.bfloat16
    assert found["bf16"].equal(state["bf16"])
    assert found["view"].equal(state["view"])
    assert found["tiny"] == 1e-300


def test_object_that_is_no_data_is_refused(tmp_path):
    with pytest.raises(TypeError, match="builtin_function"):
        save_state(tmp_path, "state", {"callback": print})


def test_optimizer_goes_on_as_if_nothing_had_happened(tmp_path):
    def make():
        torch.manual_seed(0)
        parameter = torch.nn.Parameter(torch.randn(5))
        return parameter, torch.optim.AdamW([parameter], lr=0.1)

    def step(parameter, optimizer):
        optimizer.zero_grad()
        (parameter**3).sum().backward()
        optimizer.step()

    whole, optimizer = make()
    for _ in range(4):
        step(whole, optimizer)
    part, optimizer = make()
    for _ in range(2):
        step(part, optimizer)
    save_state(tmp_path, "optimizer", optimizer.state_dict())
    resumed, optimizer = make()
    resumed.data.copy_(part.data)
    optimizer.load_state_dict(load_state(tmp_path, "optimizer"))
    for _ in range(2):
        step(resumed, optimizer)
    assert resumed.equal(whole)


def test_generators_go_on_where_they_stood(tmp_path):
    random.random(), np.random.rand(), torch.rand(1)
    save_state(tmp_path, "rng", rng_state())
    expected = random.random(), np.random.rand(), torch.rand(3), random.gauss(0, 1), np.random.randn()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    restore_rng_state(load_state(tmp_path, "rng"))
    found = random.random(), np.random.rand(), torch.rand(3), random.gauss(0, 1), np.random.randn()
    assert found[2].equal(expected[2])
    assert found[:2] + found[3:] == expected[:2] + expected[3:]


def test_signal_raises_a_flag_and_the_second_one_acts():
    arrived = []
    before = signal.signal(signal.SIGTERM, lambda *_: arrived.append(1))
    try:
        with Interruption() as interruption:
            assert not interruption.requested
            signal.raise_signal(signal.SIGTERM)
            assert interruption.requested
            assert not arrived
            signal.raise_signal(signal.SIGTERM)
            assert arrived == [1]
        assert "SIGTERM" in str(interruption.stop(7, saved=True))
    finally:
        signal.signal(signal.SIGTERM, before)


def test_checkpoints_without_a_root_leave_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    checkpoints = Checkpoints(None, step="sft", config={"seed": 1}, dataset="d", parent=None)
    checkpoints.save(3, lambda directory: save_state(directory, "w", {"a": 1}), metadata={"m": 2}, best=True)
    with checkpoints.best() as found:
        assert found is not None
        assert load_state(found[0], "w") == {"a": 1}
        assert found[1].metadata == {"m": 2}
    checkpoints.close()
    time.sleep(0)
    assert list(tmp_path.iterdir()) == []
