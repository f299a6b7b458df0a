"""One of two ranks that resume from rank 0's: `python broadcast.py RANK STORE NAME ...`."""

import os
import sys

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.nn.parallel import DistributedDataParallel

import hub
from hub.testing.comparing import assert_same

RANKS = 2


def start(name):
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(64, 128), nn.Linear(128, 64)))
    arguments = {"target_modules": "all-linear", "rank": 4, "update_proj_gap": 10, "lr": 1e-2}
    return model, hub.build(name, model, **arguments)


def train(model, optimizer, steps):
    for step in steps:
        inputs = torch.randn(4, 64, generator=torch.Generator().manual_seed(step))
        model(inputs).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def main(rank, store, names):
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS
    )
    for name in names:
        resume(name, rank)
    torch.distributed.destroy_process_group()


def resume(name, rank):
    whole, optimizer = start(name)
    train(whole, optimizer, range(6))
    half, optimizer = start(name)
    train(half, optimizer, range(3))
    full = StateDictOptions(full_state_dict=True)
    saved = get_optimizer_state_dict(half, optimizer, options=full)
    fresh, resumed = start(name)
    fresh.load_state_dict(half.state_dict())
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_optimizer_state_dict(fresh, resumed, saved if rank == 0 else {}, options=options)
    train(fresh, resumed, range(3, 6))
    assert_same(fresh, whole)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
