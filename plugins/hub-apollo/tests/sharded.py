"""One of two ranks that train a replicated or sharded model: `python sharded.py RANK STORE`."""

import os
import sys
import tempfile
from copy import deepcopy

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import hub

CASES = [
    {},
    {"rank": 1, "scale": 128.0, "scale_type": "tensor"},
    {"proj": "svd"},
]
RANKS = 2
ROWS = 33  # not a multiple of the ranks


def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, ROWS), nn.GELU(), nn.Linear(ROWS, 16))


def alone(case):
    model = make()
    return model, build(model, case)


def replicated(case):
    model = make()
    torch.manual_seed(dist.get_rank())  # has no part in projections
    return DistributedDataParallel(model), build(model, case)


def sharded(case):
    model = fully_shard(make())
    torch.manual_seed(dist.get_rank())
    return model, build(model, case)


def sharded_after_building(case):
    model = make()
    optimizer = build(model, case)
    return fully_shard(model), optimizer


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
            next(model.parameters()).grad.zero_()
        optimizer.step()


def whole(parameter):
    return parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter.detach()


def difference(model, other):
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return max((whole(p) - whole(q)).abs().max().item() for p, q in pairs)


def check(case, rank):
    whole_run, reference = alone(case)
    train(whole_run, reference, range(6))
    for start in (replicated, sharded, sharded_after_building):
        model, optimizer = start(case)
        train(model, optimizer, range(4), rank)
        half_way, state = deepcopy(model.state_dict()), get_optimizer_state_dict(model, optimizer)
        folder = [tempfile.mkdtemp()]
        dist.broadcast_object_list(folder)
        dcp.save({"optimizer": state}, checkpoint_id=folder[0])
        train(model, optimizer, range(4, 6), rank)
        assert difference(model, whole_run) == 0, (case, start)

        fresh, continued = start(case)
        fresh.load_state_dict(half_way)
        saved = {"optimizer": get_optimizer_state_dict(fresh, continued)}
        dcp.load(saved, checkpoint_id=folder[0])
        set_optimizer_state_dict(fresh, continued, saved["optimizer"])
        train(fresh, continued, range(4, 6), rank)
        assert difference(model, fresh) == 0, (case, start)


def main(rank, store):
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS)
    for case in CASES:
        check(case, rank)
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads (torch 2.13) abort an interpreter that ends before they do


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
