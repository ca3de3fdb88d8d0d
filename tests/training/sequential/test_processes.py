"""How a batch is shared out, and that its random numbers are those of one process."""

import numpy as np
import pytest
import torch

from latentrec.models.sequential.layers import dropout
from latentrec.models.sequential.noise import drawn, rows_of
from latentrec.training.sequential.processes import ALONE, Processes
from latentrec.training.sequential.rows import NO_TARGET, Batch, rows_in
from latentrec.training.sequential.state import Progress
from latentrec.training.sequential.training_loop import _check_resumed_together
from tests.errors import refused


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("total", [1, 2, 7])
def test_every_row_counts_on_one_process(size, total):
    parts = [Processes(rank, size).part(total) for rank in range(size)]
    assert sorted(row for part in parts if part.counts for row in part.rows.tolist()) == list(range(total))
    assert all(len(part.rows) and part.total == total for part in parts)
    lengths = [len(part.rows) for part in parts if part.counts]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("size", [2, 3, 8])
def test_the_parts_noise_is_the_whole_batch_s(size):
    x = torch.randn(7, 3, 2)

    def noise_of(processes):
        part = processes.part(7)
        torch.manual_seed(5)
        with rows_of(part):
            return (
                part,
                dropout(x[part.rows], 0.4, True),
                drawn(torch.rand, (len(part.rows), 4)),
                torch.rand(()),
            )

    _, *whole = noise_of(ALONE)
    for rank in range(size):
        part, kept, uniform, after = noise_of(Processes(rank, size))
        assert torch.equal(kept, whole[0][part.rows])
        assert torch.equal(uniform, whole[1][part.rows])
        assert after == whole[2], "the generator stands where everybody's does"


def test_a_row_that_only_stands_in_has_no_target():
    batch = Batch(torch.tensor([[1, 2]]), torch.tensor([[2, 3]]), torch.tensor([2]))
    part = Processes(1, 2).part(1)
    assert not part.counts
    assert (rows_in(batch, part).targets_BL == NO_TARGET).all()
    assert torch.equal(rows_in(batch, ALONE.part(1)).targets_BL, batch.targets_BL)


def test_one_process_needs_no_group():
    assert ALONE.any(True)
    assert not ALONE.any(False)
    assert ALONE.sum_figures([1.0, 2.0]) == [1.0, 2.0]
    assert np.array_equal(ALONE.gather_figures(np.array([3, 1]), 2), [3.0, 1.0])
    rows = torch.tensor([[1.0], [2.0]], requires_grad=True)
    gathered = ALONE.gather(rows, torch.tensor([1, 0]), 2)
    assert gathered.tolist() == [[2.0], [1.0]]
    (gathered * torch.tensor([[3.0], [5.0]])).sum().backward()
    assert rows.grad.tolist() == [[5.0], [3.0]]


def test_processes_that_see_different_checkpoints_are_refused():
    class Apart(Processes):
        def sum_figures(self, own):
            return [own[0], 7.0]

    with refused("checkpoint.not_shared", "step 3", "process 0 of 2"):
        _check_resumed_together(Apart(0, 2), Progress(step=3))
    _check_resumed_together(Apart(0, 2), Progress(step=7))
