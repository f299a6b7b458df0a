"""Checks of what stands around a step: norms, closures and detaching: P6, P7, P11."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch.nn.utils import get_total_norm

from hub.errors import UnsupportedError
from hub.running.attach import detach
from hub.running.layerwise.subclass import grad_norm
from hub.spec import Trait
from hub.testing.comparing import weights
from hub.testing.expect import expect
from hub.testing.fresh_process import schedule
from hub.testing.kit_model import batch, loss_of
from hub.testing.subject import Subject, backward, differing, train

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from torch.optim import Optimizer

    from hub.testing.kit_model import Model

STEPS = 3
CLOSE = 1e-2  # of a norm in bf16


def norm_before_step(subject: Subject) -> None:
    """P7: before the step, `hub.grad_norm` is the norm of the gradients of this step."""
    model, optimizer = subject.start()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for step in range(STEPS):
        model.take_detour = step % 2 == 0
        tokens = batch(step)
        truth = _norm_of(loss_of(model, tokens), parameters)
        loss_of(model, tokens).backward()  # type: ignore[no-untyped-call]
        found = grad_norm(optimizer)
        expect(
            torch.allclose(found.float(), truth.float(), rtol=CLOSE),
            f"the norm of the gradients is {truth.item()}, and is reported as {found.item()}",
        )
        optimizer.step()
        optimizer.zero_grad()
        expect(
            not subject.in_backward or torch.equal(found, grad_norm(optimizer)),
            f"the norm is {found.item()} before the step and {grad_norm(optimizer).item()} after",
        )


def _norm_of(loss: Tensor, parameters: list[Tensor]) -> Tensor:
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return get_total_norm([gradient for gradient in found if gradient is not None])


def closures(subject: Subject) -> None:
    """P6: `step(closure)` is the closure's backward pass, and then the step.

    By position and by keyword. With `max_grad_norm` it clips, or is refused.
    """
    inside, optimizer = subject.start()
    before, other = subject.start()
    for step in range(STEPS):
        closure = partial(_loss, inside, step)
        loss = optimizer.step(closure=closure) if step % 2 else optimizer.step(closure)
        wanted = _loss(before, step)
        other.step()
        expect(loss is not None, "step(closure) does not return the closure's loss")
        expect(loss == wanted, f"step(closure) returns {loss}, and the closure {wanted}")
        optimizer.zero_grad()
        other.zero_grad()
    wrong = differing(weights(before), weights(inside))
    expect(not wrong, f"step(closure) is not the closure and then a step in {wrong}")
    if not subject.any_has(Trait.STEPS_IN_BACKWARD):
        _clips_after_it(subject)


def _loss(model: Model, step: int) -> float:
    return backward(model, step).item()


def _clips_after_it(subject: Subject) -> None:
    """Expect that a closure's gradients are clipped, or that it is refused."""
    model, optimizer = subject.start(max_grad_norm=1e-3)
    other, stepped = subject.start(max_grad_norm=1e-3)
    try:
        optimizer.step(partial(_loss, model, 0))
    except UnsupportedError:
        return
    _loss(other, 0)
    stepped.step()
    wrong = differing(weights(other), weights(model))
    expect(not wrong, "max_grad_norm with a closure is accepted, and clips nothing")


def detaches(subject: Subject) -> None:
    """P11: after `hub.detach`, the package's own class steps on under its schedule."""
    plain = subject.model()
    model, optimizer = subject.start()
    following = schedule(optimizer)
    detach(optimizer)
    expect(_hooks(model) == _hooks(plain), "hooks on the model's parameters are left after detach")
    inside = any("layerwise" in cls.__module__ for cls in type(optimizer).__mro__)
    expect(not inside, f"after detach the optimizer is a {type(optimizer).__name__}")
    for step in range(STEPS):
        train(model, optimizer, 1, step)
        following.step()
    other, reference = _eager(subject)
    wrong = differing(weights(other), weights(model))
    expect(not wrong, f"detached, it does not step as the eager form under a schedule in {wrong}")
    expect(type(optimizer) is type(reference), f"detached, it is a {type(optimizer).__name__}")


def _eager(subject: Subject) -> tuple[Model, Optimizer]:
    """Return what has trained under a schedule that came after detaching, if that has to be."""
    model, optimizer = subject.start()
    if subject.in_backward:
        detach(optimizer)
    following = schedule(optimizer)
    for step in range(STEPS):
        train(model, optimizer, 1, step)
        following.step()
    return model, optimizer


def _hooks(model: Module) -> list[int]:
    return [
        len(p._post_accumulate_grad_hooks or ()) + len(p._backward_hooks or ())  # noqa: SLF001 - nothing public tells
        for p in model.parameters()
    ]
