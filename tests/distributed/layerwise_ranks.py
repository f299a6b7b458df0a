"""One of several ranks that step in the backward pass: `python layerwise_ranks.py RANK RANKS STORE CASE`.

A case is a function below. Ranks 0 and 1 get a half of each batch; all others contribute zeros, so
that sums of gradients round as in one process.
"""

import os
import sys
from dataclasses import replace

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP

import hub
from hub.measuring import GradientMeter
from hub.names.registry import default_registry
from hub.spec import Trait
from hub.testing.comparing import weights
from hub.testing.kit_model import batch, loss_of, make_model
from hub.testing.subject import Subject

STEPS = 3
RANK, RANKS = int(sys.argv[1]), int(sys.argv[2])
BF16 = {"flash"}
"""Families whose fp32 weights are not what they are for."""


def subject(name):
    return Subject(name, "bf16" if name.split("_")[0] in BF16 else "fp32")


def names():
    """Return every name that steps in the backward pass."""
    registry = default_registry()
    for name in hub.list_optimizers():
        traits = registry.optimizer(name).traits
        if Trait.STEPS_IN_BACKWARD in traits:
            yield name
        elif Trait.PER_PARAMETER in traits:
            yield name + "_layerwise"


def half(step, rank, parts=1):
    """Return a rank's micro-batches of a step."""
    return batch(step, 4 * parts).chunk(2)[rank % 2].chunk(parts)


def in_one_process(name, parts=1, ranks=RANKS, before_step=None, **arguments):
    """Return the model that one process trains with the mean of the gradients of the ranks."""
    one = subject(name)
    if one.spec.eager_spec is not None:
        one = replace(one, name=one.spec.eager_spec.name)
    model, optimizer = one.start(**arguments)
    if one.in_backward:
        hub.detach(optimizer)
    for step in range(STEPS):
        model.take_detour = step % 2 == 0
        sums = {}
        for rank in range(2):
            for tokens in half(step, rank, parts):
                (loss_of(model, tokens) / parts).backward()
            for parameter in model.parameters():
                if parameter.grad is not None:
                    gradient, parameter.grad = parameter.grad * (1 / ranks), None
                    sums[parameter] = sums.get(parameter, 0) + gradient
        for parameter, gradient in sums.items():
            parameter.grad = gradient
        if before_step is not None:
            before_step(model, optimizer)
        optimizer.step()
        optimizer.zero_grad()
    return model


def in_all(name, parts=1, wrap=DDP, backward=None, **arguments):
    """Return the model that all ranks train."""
    model, optimizer = subject(name).start(**arguments)
    if RANK:  # DDP begins with the weights of rank 0, and so does hub
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(RANK)
    wrapped = wrap(model)
    for step in range(STEPS):
        model.take_detour = step % 2 == 0
        for number, tokens in enumerate(half(step, RANK, parts)):
            loss = loss_of(wrapped, tokens) / parts * float(RANK < 2)
            (backward or _backward)(wrapped, optimizer, loss, number)
        assert not any(
            p.grad.untyped_storage().nbytes()
            for p in model.parameters()
            if p.grad is not None and type(p.grad) is torch.Tensor
        )
        optimizer.step()
        optimizer.zero_grad()
    return model


def _backward(model, optimizer, loss, number):
    loss.backward()


def assert_equal(expected, model, label):
    for (name, p), (_, q) in zip(
        expected.named_parameters(), model.named_parameters(), strict=True
    ):
        assert torch.equal(p, q), (label, RANK, name, (p - q).abs().max().item())


def every_name():
    """Every name under DDP, to the last bit."""
    for name in names():
        print(name)
        assert_equal(in_one_process(name), in_all(name), name)


def without_ddp():
    """hub averages, and gives all ranks the weights of rank 0, those without gradients too."""
    for name in ("adamw_torch_layerwise", "lomo"):
        assert_equal(in_one_process(name), in_all(name, wrap=lambda model: model), name)


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = dist.FileStore(sys.argv[3], RANKS)
    dist.init_process_group("gloo", store=store, rank=RANK, world_size=RANKS)
    for case in sys.argv[4:]:
        globals()[case]()
        dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads (torch 2.13) abort an interpreter that ends before they do
