"""What the cases of `layerwise_ranks.py` share: training by one process, and by all."""

import re
import sys
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import hub
from hub.testing.kit_model import batch, loss_of
from hub.testing.subject import Subject

STEPS = 3
RANK, RANKS = int(sys.argv[1]), int(sys.argv[2])
SOME = ["adamw_torch_layerwise", "adafactor_layerwise", "schedule_free_adamw_layerwise", "lomo"]


def subject(name):
    return Subject(name, "bf16" if name.startswith("flash") else "fp32")


def half(step, rank, parts=1):
    """Return a rank's micro-batches of a step."""
    return batch(step, 4 * parts).chunk(2)[rank % 2].chunk(parts)


def in_one_process(name, parts=1, ranks=RANKS, before_step=None, take_detour=None, **arguments):
    """Return the model that one process trains with the mean of the gradients of the ranks."""
    one = subject(name)
    if one.spec.eager_spec is not None:
        one = replace(one, name=one.spec.eager_spec.name)
    model, optimizer = one.start(**arguments)
    if one.in_backward:
        hub.detach(optimizer)
    for step in range(STEPS):
        model.take_detour = step % 2 == 0 or bool(take_detour)
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


def in_all(name, parts=1, wrap=DistributedDataParallel, sync=None, before_step=None, **arguments):
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
            with skipped_sync(wrapped, skip=sync is not None and not sync(number)):
                share(wrapped, optimizer, tokens, parts)
        if before_step is not None:
            before_step(model, optimizer)
        optimizer.step()
        optimizer.zero_grad()
    return model


def skipped_sync(wrapped, *, skip):
    return wrapped.no_sync() if skip else nullcontext()


def share(wrapped, optimizer, tokens, parts=1):
    """Compute the gradients of this rank's micro-batch, which all but two ranks multiply by 0."""
    loss = loss_of(wrapped, tokens) / parts * float(RANK < 2)
    engine = optimizer.hub_engine
    if engine.settings.clipping == "exact":
        hub.grad_norm(optimizer, loss)
    loss.backward()


def assert_equal(expected, model, label):
    for (name, p), (_, q) in zip(
        expected.named_parameters(), model.named_parameters(), strict=True
    ):
        assert torch.equal(p, q), (label, RANK, name, (p - q).abs().max().item())


def clip_by_hand(mode):
    """Return a function that clips all gradients, in the order of the groups."""
    previous = []

    def clip(_, optimizer):
        every = [p for group in optimizer.param_groups for p in group["params"]]
        parameters = [p for p in every if p.grad is not None]
        whole = torch.nn.utils.get_total_norm([p.grad for p in parameters])
        if mode == "exact":
            torch.nn.utils.clip_grads_with_norm_(parameters, 0.05, whole)
        for p in parameters:
            if mode == "value":
                torch.nn.utils.clip_grad_value_([p], 1e-3)
            elif mode == "per_parameter" or (mode == "previous_norm" and not previous):
                torch.nn.utils.clip_grad_norm_([p], 0.05)
            elif mode == "previous_norm":
                p.grad.mul_(torch.clamp(0.05 / (previous[-1] + 1e-6), max=1.0))
        previous.append(whole)

    return clip


def raises(text, call, *arguments, **named):
    """Check that a call raises an error of hub with this text, and return it."""
    with pytest.raises(hub.HubError, match=re.escape(text)) as raised:
        call(*arguments, **named)
    return raised.value


def same_everywhere(model):
    for name, p in model.named_parameters():
        other = p.detach().clone()
        dist.broadcast(other, 0)
        assert torch.equal(p, other), name
