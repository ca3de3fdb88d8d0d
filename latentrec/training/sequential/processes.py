"""Training by several processes that ``torchrun`` has started: who computes what, and what they share.

The whole run's batch is shared out by rows. A process's loss is its *part* of the batch's: divided by what
the whole batch counts, so that losses and gradients of all processes sum to those of one process, however
unequal the parts are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from latentrec.models.sequential.noise import Part
from latentrec.training.common.world import world_size

PATIENCE = timedelta(hours=2)
"""How long a process waits for another one: the first may be writing a checkpoint to slow storage."""


@dataclass(frozen=True)
class Processes:
    """This process among those of its training.

    Attributes:
        rank: its place, from 0; the first one writes checkpoints and outputs.
        size: how many there are.
        device: that it computes on.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def join(cls) -> Processes:
        """Meet the others (gloo on CPUs, nccl on GPUs), where there are any; each has a GPU of its own."""
        if world_size() == 1:
            return cls(device=default_device())
        from accelerate import PartialState

        state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
        return cls(state.process_index, state.num_processes, torch.device(state.device))

    @property
    def is_first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def part(self, total: int) -> Part:
        """This process's rows of ``total``: every ``size``-th, so that rows sorted by length share evenly."""
        own = torch.arange(total)[self.rank :: self.size]
        return Part(total, own) if len(own) else Part(total, torch.zeros(1, dtype=torch.int64), counts=False)

    def sum(self, own: Tensor) -> Tensor:
        """The sum over the processes, without a gradient."""
        whole = own.detach().clone()
        if self.size > 1:
            torch.distributed.all_reduce(whole)
        return whole

    def gather(self, own: Tensor, places: Tensor, total: int) -> Tensor:
        """Rows of all processes as one tensor (``total``, …).

        The gradient reaches this process's rows alone. Where every process goes on to compute the same
        function of the result, its own rows' gradient is whole, and nothing is sent in the backward pass.

        Args:
            own: this process's rows.
            places: int64, of each of them in the result; every place is one process's.
            total: rows of the result.
        """
        whole = own.new_zeros((total, *own.shape[1:]))
        if self.size > 1:
            whole.index_copy_(0, places, own.detach())
            torch.distributed.all_reduce(whole)
        return whole.index_copy(0, places, own)

    def once(self, common: Tensor) -> Tensor:
        """A term that every process computes whole, such that the values sum to it; its gradient stays."""
        if self.size == 1:
            return common
        return common - common.detach() * (1 - 1 / self.size)

    def gather_figures(self, own: np.ndarray, total: int) -> np.ndarray:
        """float64 (``total``,): the numbers of all processes for rows shared out as by :meth:`part`."""
        whole = np.zeros(total)
        whole[self.rank :: self.size] = own
        return np.array(self.sum_figures(whole.tolist()))

    def sum_figures(self, own: Sequence[float]) -> list[float]:
        """The sum over the processes of each of a few numbers."""
        if self.size == 1:
            return list(own)
        return self.sum(torch.tensor(own, dtype=torch.float64, device=self.device)).tolist()

    def any(self, flag: bool) -> bool:
        """Whether it is so on any process."""
        return self.sum_figures([float(flag)])[0] > 0

    def all_have(self, value: int) -> bool:
        """Whether every process has this value; the answer is the same on all."""
        every = [0.0] * self.size
        every[self.rank] = float(value)
        return len(set(self.sum_figures(every))) == 1

    def objective(self, model: nn.Module, loss: Callable[..., tuple[Tensor, dict[str, float]]]) -> Objective:
        """``loss``, to be called for every batch, whose gradients all processes share."""
        return Objective(model, loss, self)


class Objective:
    """A loss whose :meth:`backward` leaves the whole batch's gradients on every process.

    Args:
        model: its parameters get the gradients.
        loss: this process's part of the loss, and of the figures.
        processes: those that share.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[..., tuple[Tensor, dict[str, float]]],
        processes: Processes,
    ):
        self.processes = processes
        self._call: Callable[..., tuple[Tensor, dict[str, float]]] = loss
        if processes.size > 1:
            self._call = DistributedDataParallel(_Loss(model, loss), gradient_as_bucket_view=True)

    def __call__(self, *arguments: Any) -> tuple[Tensor, dict[str, float]]:
        """This process's part of the loss, and of the figures."""
        return self._call(*arguments)

    def backward(self, own: Tensor) -> None:
        """Sum the gradients of all parts: torch takes the mean over the processes."""
        (own * self.processes.size if self.processes.size > 1 else own).backward()


class _Loss(nn.Module):
    """A loss as the forward pass of a module: what ``DistributedDataParallel`` wraps."""

    def __init__(self, model: nn.Module, loss: Callable[..., tuple[Tensor, dict[str, float]]]):
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, *arguments: Any) -> tuple[Tensor, dict[str, float]]:
        return self.loss(*arguments)


def default_device() -> torch.device:
    """The first GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


ALONE = Processes()
"""One process, on the CPU."""
