"""What two ranks do in the tests of muon and its rest; each function asserts on every rank."""

import torch
from helpers.sharded import shard, train
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

import hub
from hub.testing.process_model import EVEN, loss_of, make_net
from hub.testing.strategies import whole_weights

ARGUMENTS = {"lr": 0.02, "rest": {"lr": 3e-3}}


def trained(wrap=lambda net: net, name="muon", arguments=ARGUMENTS):
    """Return the weights after some steps, all ranks with the whole batch."""
    net = make_net(EVEN, torch.float32)
    wrapped = wrap(net)
    optimizer = hub.build(name, wrapped, **arguments)
    train(wrapped, optimizer, 3)
    return whole_weights(net), optimizer


def sharded_matrices_get_muon():
    """They fell back to AdamW: ISEEKYAN/Megatron-LM #130."""
    alone, plain = trained()
    found, optimizer = trained(shard)
    groups = [group for group in optimizer.param_groups if "ns_steps" in group]
    names = [name for group in groups for name in group["param_names"]]
    assert all(isinstance(p, DTensor) for group in groups for p in group["params"])
    assert names == [n for g in plain.param_groups if "ns_steps" in g for n in g["param_names"]]
    assert len(names) > 1
    for ours, theirs in zip(found, alone, strict=True):
        assert torch.equal(ours, theirs)
    other, _ = trained(shard, "adamw_torch", {"lr": 3e-3})
    assert not all(map(torch.equal, found, other))


def ranks_stay_together():
    """They drifted apart: DeepSpeed #8090."""
    net = make_net(EVEN, torch.float32)
    wrapped = DistributedDataParallel(net)
    optimizer = hub.build("muon", wrapped, **ARGUMENTS)
    for step in range(3):
        optimizer.zero_grad()
        loss_of(wrapped, step, torch.distributed.get_rank()).backward()
        optimizer.step()
    for weight in whole_weights(net):
        first = weight.clone()
        torch.distributed.broadcast(first, 0)
        assert torch.equal(weight, first)


CASES = [sharded_matrices_get_muon, ranks_stay_together]
