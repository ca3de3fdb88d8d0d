"""Weights, gradients and optimizer state shared out over the processes: PyTorch's FSDP2, through accelerate.

A sharded parameter is a ``DTensor``. Checkpoints and model directories hold whole tensors, whatever the
number of processes: so a checkpoint of two processes resumes on one or on four.
"""

from __future__ import annotations

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


def reshard(model: nn.Module) -> None:
    """Free what the last pass has gathered, so that the parameters are the optimizer's again."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole(value: Any) -> Any:
    """A nested state with whole tensors in place of sharded ones; every process must call it alike."""
    if isinstance(value, Tensor):
        return value.full_tensor() if hasattr(value, "full_tensor") else value
    if isinstance(value, dict):
        return {key: whole(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(whole(one) for one in value)
    return value


def sharded_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor, shared out as a parameter is; as it is where that one is not sharded."""
    if not hasattr(parameter, "full_tensor") or tensor.shape != parameter.shape:
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


def gather_parameters(model: nn.Module) -> None:
    """Put whole parameters in place of sharded ones, after training; every process must call it."""
    reshard(model)
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None or not hasattr(parameter, "full_tensor"):
                continue
            if id(parameter) not in made:
                sharded: Any = parameter.detach()  # a DTensor
                made[id(parameter)] = nn.Parameter(
                    sharded.full_tensor(), requires_grad=parameter.requires_grad
                )
            module._parameters[name] = made[id(parameter)]
