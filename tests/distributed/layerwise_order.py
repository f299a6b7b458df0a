"""Cases in which the ranks differ, or one of them fails."""

import torch
from layerwise_common import RANK, half, raises, same_everywhere, share
from torch.nn.parallel import DistributedDataParallel

import hub
from hub.testing.comparing import weights
from hub.testing.kit_model import make_model


class Branching(torch.nn.Module):
    """Uses its layers in the order that it is told."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(4, 4, bias=False)
        self.second = torch.nn.Linear(4, 4, bias=False)
        self.third = torch.nn.Linear(4, 3, bias=False)
        self.small = torch.nn.Parameter(torch.ones(1))

    def forward(self, x, order):
        for name in order:
            x = x * self.small if name == "small" else getattr(self, name)(x)
        return x.square().sum()


EVERY = ("first", "second", "small")
ORDERS = [
    # of rank 0, of rank 1, where rank 0 and rank 1 are when they differ
    (EVERY, ("second", "first", "small"), "second.weight", "first.weight"),
    (EVERY, ("first", "small"), "second.weight", "first.weight"),
    (EVERY, ("small",), "second.weight", "the end of the backward pass"),
    (EVERY, (), "small", "optimizer.step()"),
    (("small", "first"), ("small", "first", "third"), "first.weight", "third.weight"),
]


def other_order():
    """The same error on all ranks, for every way to differ; the next step works."""
    for wrap in (
        lambda model: model,
        DistributedDataParallel,
        lambda model: DistributedDataParallel(model, find_unused_parameters=True),
    ):
        torch.manual_seed(0)
        model = Branching()
        optimizer = hub.build("adamw_torch_layerwise", model, lr=0.1)
        wrapped = wrap(model)
        for orders in ORDERS:
            before = weights(model)
            error = raises("differ in the order", step, wrapped, optimizer, orders[RANK])
            assert isinstance(error, hub.UnsupportedError)
            assert f"rank 0 is at {orders[2]}, rank 1 at {orders[3]}" in error.what, error.what
            optimizer.step()
            same_everywhere(model)
            step(wrapped, optimizer, EVERY)
            same_everywhere(model)
            assert not torch.equal(model.first.weight, before["first.weight"])
        hub.detach(optimizer)


def step(wrapped, optimizer, order):
    loss = wrapped(torch.ones(1, 4), order)
    if order:
        loss.backward()
    optimizer.step()


def failed_updates():
    """All ranks raise the same error at once, and the next step works."""
    for failing in ({0, 1}, {1}):
        model = make_model()
        optimizer = hub.build("adamw_torch_layerwise", model, lr=1e-2)
        wrapped = DistributedDataParallel(model)
        share(wrapped, optimizer, half(0, RANK)[0])
        optimizer.step()
        for_one = optimizer.hub_engine._step.for_one
        run = for_one()

        def fail(live, item, run=run, failing=failing, target=model.blocks[1].up.weight):
            if item.parameter is target and RANK in failing:
                raise ValueError("out of memory, say")
            run(live, item)

        optimizer.hub_engine._step.for_one = lambda fail=fail: fail
        error = raises(
            "the update of blocks.1.up.weight failed: out of",
            share,
            wrapped,
            optimizer,
            half(1, RANK)[0],
        )
        assert error.what.startswith(f"on rank {min(failing)}, "), error
        assert ("resume from a checkpoint" in error.fix) == (failing == {1})
        optimizer.hub_engine._step.for_one = for_one
        optimizer.step()
        share(wrapped, optimizer, half(2, RANK)[0])
        optimizer.step()


def one_rank_interrupted():
    """An exception on one rank reaches the others when it ends its step."""
    model = make_model()
    optimizer = hub.build("adamw_torch_layerwise", model, lr=1e-2)
    wrapped = DistributedDataParallel(model)

    def fail(_):
        raise ValueError("of the user")

    if RANK == 1:
        handle = model.blocks[0].down.weight.register_hook(fail)
        try:
            share(wrapped, optimizer, half(0, RANK)[0])
        except ValueError:
            handle.remove()
        raises("rank 1 at optimizer.step()", optimizer.step)
    else:
        error = "rank 0 is at blocks.0.down.weight, rank 1 at optimizer.step()"
        raises(error, share, wrapped, optimizer, half(0, RANK)[0])
    optimizer.step()
    same_everywhere(model)
    share(wrapped, optimizer, half(1, RANK)[0])
    optimizer.step()
    same_everywhere(model)
