"""One of two ranks that train a sharded model and the whole one: `python sharded.py RANK STORE`."""

import os
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

import hub

BOTH = {"projection": "randomized", "refresh": "staggered", "update_proj_gap": 6}


def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 33), nn.GELU(), nn.Linear(33, 16))


def train(model):
    optimizer = hub.build("galore_adamw", model, target_modules="all-linear", rank=4, **BOTH)
    for step in range(9):
        inputs = torch.randn(8, 16, generator=torch.Generator().manual_seed(step))
        model(inputs).square().mean().backward()  # the same on both ranks
        optimizer.step()
        optimizer.zero_grad()
    return model


def main(rank, store):
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    whole, sharded = train(make()), train(fully_shard(make()))
    for one, other in zip(whole.parameters(), sharded.parameters(), strict=True):
        assert torch.equal(one, other.full_tensor())
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads (torch 2.13) abort an interpreter that ends before they do


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
