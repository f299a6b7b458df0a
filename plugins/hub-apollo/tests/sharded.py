"""One of two ranks that train a model sharded by FSDP2: `python sharded.py RANK STORE`."""

import os
import sys
import tempfile
from copy import deepcopy

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from apollo_torch import APOLLOAdamW
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard

import hub

CASES = [
    {},
    {"rank": 1, "scale": 128.0, "scale_type": "tensor"},
    {"proj": "svd"},
]
RANKS = 2
ROWS = 33  # not a multiple of the ranks


def make(shard):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, ROWS), nn.GELU(), nn.Linear(ROWS, 16))
    return fully_shard(model) if shard else model


def build(model, case):
    return hub.build(
        "apollo_adamw",
        model,
        target_modules="all-linear",
        **{"rank": 4, "lr": 1e-2, "weight_decay": 0.1, "update_proj_gap": 3, **case},
    )


def train(model, optimizer, steps, part=slice(None)):
    for step in steps:
        inputs = torch.randn(8, 16, generator=torch.Generator().manual_seed(step))
        model.zero_grad()
        model(inputs[part]).square().mean().backward()
        if step == 1:
            model[0].weight.grad.zero_()
        optimizer.step()


def whole(parameter):
    return parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter.detach()


def difference(model, other):
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return max((whole(p) - whole(q)).abs().max().item() for p, q in pairs)


def check(case, part):
    alone, model = make(shard=False), make(shard=True)
    train(alone, build(alone, case), range(6))
    optimizer = build(model, case)
    train(model, optimizer, range(4), part)
    half_way, state = deepcopy(model.state_dict()), get_optimizer_state_dict(model, optimizer)
    folder = [tempfile.mkdtemp()]
    dist.broadcast_object_list(folder)
    dcp.save({"optimizer": state}, checkpoint_id=folder[0])
    train(model, optimizer, range(4, 6), part)
    # Means over shards, added up, round differently from the mean over the batch.
    assert difference(model, alone) < 1e-6, case

    fresh = make(shard=True)
    continued = build(fresh, case)
    fresh.load_state_dict(half_way)
    saved = {"optimizer": get_optimizer_state_dict(fresh, continued)}
    dcp.load(saved, checkpoint_id=folder[0])
    set_optimizer_state_dict(fresh, continued, saved["optimizer"])
    train(fresh, continued, range(4, 6), part)
    assert difference(model, fresh) == 0, case


def check_the_bare_class():
    """When this fails, `factory._replicated` is not needed any more."""
    model = make(shard=True)
    projection = {"rank": 4, "update_proj_gap": 3, "scale": 1.0, "proj": "random"}
    projection |= {"proj_type": "std", "scale_type": "channel"}
    optimizer = APOLLOAdamW([{"params": [model[0].weight], **projection}])
    with pytest.raises(RuntimeError, match=r"mixed torch\.Tensor and DTensor"):
        train(model, optimizer, [0])


def main(rank, store):
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS)
    size = 8 // RANKS
    for case in CASES:
        check(case, slice(rank * size, (rank + 1) * size))
    check_the_bare_class()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
