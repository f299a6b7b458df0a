"""One of two ranks that compare estimates with what FSDP2 leaves: `estimated.py RANK STORE`."""

import os
import sys

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

import hub
from hub.measuring import plain_tensors, tensor_bytes
from hub.spec import Trait
from hub.testing import Subject
from hub.testing.subject import LR, train

RANKS = 2
NAMES = [
    "adafactor",
    "adagrad",
    "adamw_8bit",
    "adamw_torch",
    "adamw_torch_4bit",
    "flash_adamw",
    "galore_adamw",
    "galore_adamw_8bit",
    "grokadamw",
    "lion_32bit",
    "schedule_free_adamw",
    "stable_adamw",
]


def arguments(subject):
    targets = {"target_modules": "all-linear"} if Trait.LOW_RANK in subject.spec.traits else {}
    return {**targets, "lr": LR, **subject.spec.example_arguments}


def sharded(subject):
    model = subject.model()
    for block in model.blocks:
        fully_shard(block)
    return fully_shard(model)


def measured(optimizer):
    storages = {
        (tensor.data_ptr(), tensor.storage_offset()): tensor.nbytes
        for state in optimizer.state.values()
        for tensor in plain_tensors(state)
        if tensor.nbytes
    }
    return sum(storages.values())


def check(name):
    subject = Subject(name, "bf16" if name.startswith("flash") else "fp32")
    ahead = hub.estimate(name, subject.model(), mesh=(RANKS,), **arguments(subject))
    model = sharded(subject)
    here = hub.estimate(name, model, **arguments(subject))
    optimizer = hub.build(name, model, **arguments(subject))
    train(model, optimizer, 1)
    trained = [tensor_bytes(p) for p in model.parameters() if p.requires_grad]
    switches = Trait.TRAIN_EVAL_MODES in subject.spec.traits
    found = hub.Estimate(
        parameters=sum(tensor_bytes(p) for p in model.parameters()),
        gradients=sum(trained),
        state=measured(optimizer),
        evaluation=sum(trained) if switches else 0,
        exchange=here.exchange,
    )
    assert here == found, (name, here, found)
    everywhere = [None] * RANKS
    dist.all_gather_object(everywhere, here)
    assert ahead.total == max(each.total for each in everywhere), (name, ahead, everywhere)
    assert ahead in everywhere, (name, ahead, everywhere)


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
