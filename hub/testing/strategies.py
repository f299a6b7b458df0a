"""The ways to spread a model over several processes, and to read its whole weights."""

from __future__ import annotations

from contextlib import nullcontext
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed, nn

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor
    from torch.distributed.device_mesh import DeviceMesh

    from hub.testing.process_model import Net


class Strategy(StrEnum):
    """How a model is spread, and whether hub builds before or after."""

    DDP = "ddp"
    """Built on the model, which DDP wraps then."""
    DDP_AFTER = "ddp-after"
    """Built on the model that DDP has wrapped."""
    FSDP2 = "fsdp2"
    """Built on the model that `fully_shard` has sharded."""
    FSDP2_BEFORE = "fsdp2-before"
    """Built on the model, which `fully_shard` shards then."""
    HSDP = "hsdp"
    """FSDP2 over a mesh of two replicas."""
    FSDP1 = "fsdp1"
    """Built on the wrapped model, with its original parameters, which are flat shards."""

    @property
    def builds_first(self) -> bool:
        """Whether hub builds before the model is wrapped."""
        return self in (Strategy.DDP, Strategy.FSDP2_BEFORE)

    @property
    def is_ddp(self) -> bool:
        """Whether every rank has the whole parameters."""
        return self in (Strategy.DDP, Strategy.DDP_AFTER)


def wrap(strategy: Strategy, net: Net) -> nn.Module:
    """Return the model as the strategy has it."""
    if strategy.is_ddp:
        return nn.parallel.DistributedDataParallel(net, find_unused_parameters=net.dead is not None)
    if strategy is Strategy.FSDP1:
        from torch.distributed.fsdp import FullyShardedDataParallel

        return FullyShardedDataParallel(net, use_orig_params=True, device_id=torch.device("cpu"))
    from torch.distributed.fsdp import fully_shard

    mesh = _mesh() if strategy is Strategy.HSDP else None
    for module in (net.up, net):
        fully_shard(module, mesh=mesh)
    return net


@cache
def _mesh() -> DeviceMesh:
    from torch.distributed.device_mesh import init_device_mesh

    shape = (2, distributed.get_world_size() // 2)
    return init_device_mesh("cpu", shape, mesh_dim_names=("replicate", "shard"))


def whole(tensor: Tensor) -> Tensor:
    """Return a copy of all of a tensor, which may be sharded."""
    full = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full.detach().clone()


def whole_weights(model: nn.Module) -> list[Tensor]:
    """Return copies of all parameters, in the order of the model."""
    with _summoned(model):
        return [whole(parameter) for parameter in model.parameters()]


def _summoned(model: nn.Module) -> AbstractContextManager[Any]:
    from torch.distributed.fsdp import FullyShardedDataParallel

    if isinstance(model, FullyShardedDataParallel):
        return FullyShardedDataParallel.summon_full_params(model)
    return nullcontext()
