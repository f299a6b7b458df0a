"""One of two ranks whose replicas round at random: `python replicas.py RANK STORE`."""

import os
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import hub
from hub.testing.comparing import assert_same

RANKS = 2
NAMES = ["adamw_torch_4bit", "adamw_torch_8bit"]


def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.Dropout(), nn.Linear(128, 64)).bfloat16()


def train(model, optimizer, rank=None):
    """Train on a rank's part of each batch, or on all parts one after the other."""
    for step in range(4):
        inputs = torch.randn(8, 64, generator=torch.Generator().manual_seed(step)).bfloat16()
        for part, batch in enumerate(inputs.chunk(RANKS)):
            if rank in (None, part):
                torch.manual_seed(100 * step + part)  # dropout differs from rank to rank
                loss = model(batch).float().square().mean()
                (loss / RANKS if rank is None else loss).backward()
        optimizer.step()
        optimizer.zero_grad()


def check(name, rank):
    alone, replica = make(), make()
    arguments = {"lr": 1e-3, "bf16_stochastic_round": True}
    train(alone, hub.build(name, alone, **arguments))
    wrapped = DistributedDataParallel(replica)
    train(wrapped, hub.build(name, wrapped, **arguments), rank)
    assert_same(alone, replica)


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    own, store = int(sys.argv[1]), sys.argv[2]
    dist.init_process_group("gloo", store=dist.FileStore(store, RANKS), rank=own, world_size=RANKS)
    for each in NAMES:
        check(each, own)
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads (torch 2.13) abort an interpreter that ends before they do
