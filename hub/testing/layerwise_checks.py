"""Checks of optimizers that step inside the backward pass: P2, P5, P6."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from hub.errors import UnsupportedError
from hub.measuring import GradientMeter
from hub.running.attach import detach
from hub.testing.comparing import leaves, weights
from hub.testing.expect import expect
from hub.testing.fresh_process import schedule
from hub.testing.kit_model import Model, batch, loss_of
from hub.testing.subject import PARTNERS, Subject, backward, differing, train

if TYPE_CHECKING:
    from torch.optim import Optimizer

STEPS = 5
AT_ONCE = 3
"""The kit's tied weight has one until its last use, and a layer's weight and bias come together."""


def equals_eager(subject: Subject) -> None:
    """The same weights and state as the eager form under a schedule, bit for bit.

    Also with micro-batches, where the update comes with the last of them, and with zeros for the
    gradients of a layer that is not used.
    """
    for parts, clears in ((1, {}), (2, {"set_to_none": False})):
        inside = _run(subject, parts, clears, eager=False)
        eager = _run(subject, parts, clears, eager=True)
        wrong = differing(weights(eager[0]), weights(inside[0]))
        expect(not wrong, f"stepping inside the backward pass ({parts=}) differs in {wrong}")
        ours, theirs = (dict(leaves(optimizer.state_dict())) for _, optimizer in (inside, eager))
        wrong = sorted(key for key in theirs if not _equal(ours.get(key), theirs[key]))
        expect(not wrong, f"the state ({parts=}) differs in {wrong}")


def _run(
    subject: Subject, parts: int, clears: dict[str, bool], *, eager: bool
) -> tuple[Model, Optimizer]:
    form = subject.spec.eager_spec
    if eager and form is not None:
        subject = replace(subject, name=form.name, partner=_eager_name(subject))
    model, optimizer = subject.start(gradient_accumulation_steps=parts)
    if eager and form is None:  # the eager form has no name
        detach(optimizer)
    following = schedule(optimizer)
    for step in range(STEPS):
        backward(model, step, parts)
        optimizer.step()
        optimizer.zero_grad(**clears)
        following.step()
    return model, optimizer


def _eager_name(subject: Subject) -> str:
    spec = subject.others.get(PARTNERS)
    return subject.partner if spec is None or spec.eager_spec is None else spec.eager_spec.name


def frees(subject: Subject) -> None:
    """Each gradient is freed by its update: hardly more than one is in memory at once."""
    model, optimizer = subject.start()
    train(model, optimizer, 1)
    with GradientMeter(model.parameters()) as meter:
        backward(model, 0)
    gc.collect()
    expect(
        not meter.left(),
        f"{len(meter.left())} gradients are still in memory after the backward pass",
    )
    expect(meter.most_at_once <= AT_ONCE, f"{meter.most_at_once} gradients were in memory at once")


def steps_once(subject: Subject) -> None:
    """P6: a second backward pass before `step()` is an error, and updates nothing twice.

    The step after it is as if it had not been.
    """
    model, optimizer = subject.start()
    train(model, optimizer, 1)
    backward(model, 1)
    before = weights(model)
    try:
        loss_of(model, batch(2)).backward()  # type: ignore[no-untyped-call]
    except UnsupportedError as error:
        expect("gradient_accumulation_steps" in error.fix, f"the error has no way out: {error}")
    else:
        raise AssertionError("a second backward pass before step() is accepted")
    wrong = differing(before, weights(model))
    expect(not wrong, f"parameters were updated twice in one step: {wrong}")
    optimizer.step()
    optimizer.zero_grad()
    train(model, optimizer, 1, start=2)
    whole, other = subject.start()
    train(whole, other, 3)
    wrong = differing(weights(whole), weights(model))
    expect(not wrong, f"the refused backward pass left something behind in {wrong}")


def _equal(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, torch.Tensor):
        return isinstance(ours, torch.Tensor) and torch.equal(ours, theirs)
    return bool(ours == theirs)
