"""One of two ranks whose model FSDP2 shards: `python sharded.py RANK STORE`."""

import os
import sys
from copy import deepcopy

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

import hub

RANKS = 2
NAMES = ["schedule_free_adamw", "schedule_free_radam", "schedule_free_sgd"]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 33)
        self.second = nn.Linear(33, 16)

    def encode(self, x):
        return torch.tanh(self.first(x))

    def forward(self, x):
        return self.second(self.encode(x))


def make(shard):
    torch.manual_seed(0)
    model = Net()
    if shard:
        fully_shard(model.first)
        fully_shard(model.second)
        fully_shard(model)
    return model


def inputs(step):
    return torch.randn(8, 16, generator=torch.Generator().manual_seed(step))


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor.detach()


def run(name, evaluate, *, shard):
    """Return the weights and what the evaluations gave; every rank has the same batch."""
    model = make(shard)
    optimizer = hub.build(name, model, lr=0.05, weight_decay=0.1)
    found = []
    for step in range(6):
        model(inputs(step)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        evaluate(model, optimizer, found)
    model.train()
    return [whole(p).clone() for p in model.parameters()], found


def by_mode(model, _, found):
    model.eval()
    with torch.no_grad():
        found.append(model(inputs(99)))
    model.train()


def by_flags(model, _, found):
    model.eval()
    with torch.no_grad():
        found.append(model(inputs(99)))
    for module in model.modules():
        module.training = True


def pinned(model, optimizer, found):
    with hub.eval_mode(optimizer), torch.no_grad():
        found.append(model(inputs(99)))


def saved(model, _, found):
    found += [whole(value) for value in deepcopy(model.state_dict()).values()]


def check(name):
    undisturbed, _ = run(name, lambda *_: None, shard=True)
    for evaluate in (by_mode, by_flags, pinned, saved):
        alone, expected = run(name, evaluate, shard=False)
        weights, found = run(name, evaluate, shard=True)
        for ours, theirs in zip(weights, undisturbed, strict=True):
            assert torch.equal(ours, theirs), (name, evaluate)
        for ours, theirs in zip([*weights, *found], [*alone, *expected], strict=True):
            assert torch.equal(ours, theirs), (name, evaluate, (ours - theirs).abs().max())


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    rank, store = int(sys.argv[1]), sys.argv[2]
    dist.init_process_group("gloo", store=dist.FileStore(store, RANKS), rank=rank, world_size=RANKS)
    for each in NAMES:
        check(each)
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads (torch 2.13) abort an interpreter that ends before they do
