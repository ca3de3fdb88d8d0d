"""What a training knows of its processes."""

import torch.distributed as dist

from latentrec.training.common.world import leave_process_group, world_size


def test_processes_are_those_of_torchrun(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert world_size() == 1
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert world_size() == 4


def test_a_process_group_is_left_and_none_is_no_fault(tmp_path):
    leave_process_group()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    assert dist.is_initialized()
    leave_process_group()
    assert not dist.is_initialized()
