"""A model as FSDP2 would shard it over many ranks, of which this process is the first."""

import math

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard


def pretend(ranks):
    """Start a process group of that many ranks, of which there is only this one."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)


def mesh_of(shape):
    """Return a mesh; without process groups, unless somebody pretends that there are."""
    ranks = torch.arange(math.prod(shape)).reshape(shape)
    names = tuple("abc"[: len(shape)])
    if dist.is_initialized():
        return DeviceMesh("cpu", ranks, mesh_dim_names=names)
    return DeviceMesh("cpu", ranks, mesh_dim_names=names, _init_backend=False, _rank=0)


def as_split(model, shape, placements=None):
    """Replace the parameters by DTensors: by rows over the last dimension of the mesh."""
    mesh = mesh_of(shape)
    places = placements or [*[Replicate()] * (len(shape) - 1), Shard(0)]
    split = {parameter: _split(parameter, mesh, places) for parameter in model.parameters()}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            module._parameters[name] = split.get(parameter)
    return model


def _split(parameter, mesh, places):
    local = parameter.detach()
    for ranks, place in zip(mesh.shape, places, strict=True):
        if isinstance(place, Shard):
            local = local.chunk(ranks, place.dim)[0]
    whole = {"shape": parameter.shape, "stride": parameter.stride()}
    tensor = DTensor.from_local(local.clone(), mesh, places, run_check=False, **whole)
    return nn.Parameter(tensor, requires_grad=parameter.requires_grad)
