"""Weights, gradients and optimizer state shared out over the processes: PyTorch's FSDP2, through accelerate.

A sharded parameter is a ``DTensor``. Checkpoints and model directories hold whole tensors, whatever the
number of processes: so a checkpoint of two processes resumes on one or on four.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from latentrec.training.common.world import world_size

DDP, FSDP = "ddp", "fsdp"


def sharding_options(sharding: str, layer: type[nn.Module]) -> dict[str, Any]:
    """Settings of transformers' engine.

    Args:
        sharding: ``ddp`` (every process holds everything) or ``fsdp``; one process has nothing to share.
        layer: class of the decoder's layers; each is gathered for its own pass only.
    """
    if sharding != FSDP or world_size() == 1:
        return {}
    settings = {"version": 2, "transformer_layer_cls_to_wrap": [layer.__name__]}
    settings |= {"reshard_after_forward": True, "cpu_ram_efficient_loading": False}
    return {"fsdp": True, "fsdp_config": settings}


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP2 has taken a model."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(model, FSDPModule)


@contextmanager
def held_whole(model: nn.Module) -> Iterator[None]:
    """While it lasts every process holds all weights of a sharded model; every process must enter it.

    Generation needs it: a token is one pass, in which each layer would be gathered again, and processes whose
    answers end at different lengths would wait for each other's passes.
    """
    from torch.distributed.fsdp import FSDPModule

    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()
            unit.set_reshard_after_forward(unit is not model, recurse=False)


def reshard(model: nn.Module) -> None:
    """Free what the last pass has gathered, so that the parameters are the optimizer's again."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole(value: Any) -> Any:
    """A tensor, gathered where it is sharded; every process must call it alike."""
    return value.full_tensor() if isinstance(value, Tensor) and is_shard(value) else value  # type: ignore[attr-defined]


def gather_state(state: Any, *, keep: bool) -> Any:
    """A nested state with whole tensors in place of sharded ones; every process must call it alike.

    One tensor is gathered after the other, and leaves the device: no device ever holds the whole state.

    Args:
        state: dictionaries, lists and tuples of tensors and anything else.
        keep: whether this process wants them; elsewhere a gathered tensor is dropped (empty).
    """
    if isinstance(state, Tensor) and is_shard(state):
        gathered = whole(state)
        return gathered.cpu() if keep else torch.empty(0)
    if isinstance(state, dict):
        return {key: gather_state(one, keep=keep) for key, one in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(gather_state(one, keep=keep) for one in state)
    return state


def is_shard(tensor: Tensor) -> bool:
    """Whether a tensor is a process's part of a sharded one."""
    return hasattr(tensor, "full_tensor")


def sharded_like(tensor: Tensor | None, parameter: Tensor) -> Tensor:
    """A whole tensor, shared out as a parameter is; as it is where that one is not sharded.

    Args:
        tensor: the whole; the first process's alone is read where it is sharded, others may have ``None``.
        parameter: what it becomes or belongs to; every process must call for the same ones in turn.
    """
    if tensor is None:
        tensor = torch.empty(parameter.shape, dtype=parameter.dtype)
    if not is_shard(parameter) or tensor.shape != parameter.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    placed = tensor.to(device=parameter.device, dtype=tensor.dtype)
    return distribute_tensor(placed, parameter.device_mesh, parameter.placements)  # type: ignore[attr-defined]


def optimizer_state_for(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A whole optimizer state, shared out as its parameters are."""
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    indices = [index for group in state["param_groups"] for index in group["params"]]
    of_index = dict(zip(indices, parameters, strict=True))
    shared = {
        index: {
            name: sharded_like(value, of_index[index]) if isinstance(value, Tensor) else value
            for name, value in entry.items()
        }
        for index, entry in state["state"].items()
    }
    return {**state, "state": shared}


def gather_parameters(model: nn.Module, *, keep: bool) -> None:
    """Put whole parameters, on the CPU, in place of sharded ones, after training.

    The model can be written, not called: FSDP2 has no way back.

    Args:
        model: sharded or not; every process must call it.
        keep: whether this process wants them; the others keep their shards.
    """
    reshard(model)
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None or not is_shard(parameter):
                continue
            if id(parameter) not in made:
                gathered = gather_state(parameter.detach(), keep=keep)
                made[id(parameter)] = nn.Parameter(gathered, requires_grad=parameter.requires_grad)
            if keep:
                module._parameters[name] = made[id(parameter)]
