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


def train(model, optimizer, steps, rank=None):
    """Train on a rank's part of each batch, or on all parts one after the other.

    Their gradients, halved and added up, are those that the ranks average, to the last bit.
    """
    for step in steps:
        inputs = torch.randn(8, 16, generator=torch.Generator().manual_seed(step)).chunk(RANKS)
        model.zero_grad()
        for part in inputs if rank is None else [inputs[rank]]:
            loss = model(part).square().mean()
            (loss / RANKS if rank is None else loss).backward()
        if step == 1:
            model[0].weight.grad.zero_()
        optimizer.step()


def whole(parameter):
    return parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter.detach()


def difference(model, other):
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return max((whole(p) - whole(q)).abs().max().item() for p, q in pairs)


def check(case, rank):
    alone, model = make(shard=False), make(shard=True)
    train(alone, build(alone, case), range(6))
    optimizer = build(model, case)
    train(model, optimizer, range(4), rank)
    half_way, state = deepcopy(model.state_dict()), get_optimizer_state_dict(model, optimizer)
    folder = [tempfile.mkdtemp()]
    dist.broadcast_object_list(folder)
    dcp.save({"optimizer": state}, checkpoint_id=folder[0])
    train(model, optimizer, range(4, 6), rank)
    # Norms over a gathered gradient add up in another order: in each of six steps a weight, below
    # 0.5, may round the other way, by 2^-25, and the next gradients carry that on.
    assert difference(model, alone) < 6 * 4 * 2**-25, case

    fresh = make(shard=True)
    continued = build(fresh, case)
    fresh.load_state_dict(half_way)
    saved = {"optimizer": get_optimizer_state_dict(fresh, continued)}
    dcp.load(saved, checkpoint_id=folder[0])
    set_optimizer_state_dict(fresh, continued, saved["optimizer"])
    train(fresh, continued, range(4, 6), rank)
    assert difference(model, fresh) == 0, case


def check_the_bare_class():
    """When this fails, `factory._replicated` is not needed any more."""
    model = make(shard=True)
    projection = {"rank": 4, "update_proj_gap": 3, "scale": 1.0, "proj": "random"}
    projection |= {"proj_type": "std", "scale_type": "channel"}
    optimizer = APOLLOAdamW([{"params": [model[0].weight], **projection}])
    with pytest.raises(RuntimeError, match=r"mixed torch\.Tensor and DTensor"):
        train(model, optimizer, [0], dist.get_rank())


def main(rank, store):
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS)
    for case in CASES:
        check(case, rank)
    check_the_bare_class()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
