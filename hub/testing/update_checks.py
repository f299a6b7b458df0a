"""Checks of what steps do: P6, P7, P10."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from hub.errors import HubError
from hub.running.attach import detach
from hub.running.layerwise.subclass import grad_norm
from hub.testing.comparing import weights
from hub.testing.expect import expect
from hub.testing.kit_model import batch, loss_of
from hub.testing.subject import STEPS, Subject, backward, differing, give_gradients, train

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from hub.testing.kit_model import Model

OTHER_DTYPES = ("fp16", "fp64")
"""Of weights; in the other two every check runs."""
CLIP = 0.01
CLOSE = 0.1


def trains(subject: Subject) -> None:
    """P10: twenty steps on real text lower the loss and keep every number finite.

    fp16 and fp64 weights may be refused here although they are declared: on this device, or
    outside of the method that scales the loss.
    """
    model = subject.model()
    with torch.no_grad():
        first = loss_of(model, batch(1000, 32)).item()
    try:
        train(model, subject.build(model), 20)
    except HubError as error:
        if subject.precision not in OTHER_DTYPES or not error.fix:
            raise
        return
    with torch.no_grad():
        last = loss_of(model, batch(1000, 32)).item()
    expect(math.isfinite(last), f"the loss is {last} after 20 steps")
    expect(last < first, f"the loss went from {first} to {last} in 20 steps")


def leaves_gradients(subject: Subject) -> None:
    """P7: a step leaves the gradients as they are, to the last bit.

    What logs or accumulates them may come after it.
    """
    decay = {"weight_decay": 0.25} if subject.has("weight_decay") else {}
    model, optimizer = subject.start(**decay)
    for step in range(STEPS):
        give_gradients(model, step)
        before = _gradients(model)
        optimizer.step()
        after = _gradients(model)
        expect(before.keys() == after.keys(), "a step takes gradients away")
        wrong = differing(before, after)
        expect(not wrong, f"a step changes the gradients of {wrong}")


def _gradients(model: Model) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def accumulates(subject: Subject) -> None:
    """P6: two micro-batches are one batch, but for the rounding of the gradients."""
    whole, first = subject.start()
    parts, second = subject.start(gradient_accumulation_steps=2)
    start = weights(whole)
    for model, optimizer, count in ((whole, first, 1), (parts, second, 2)):
        backward(model, 0, count)
        optimizer.step()
    ours, theirs = _updates(start, parts), _updates(start, whole)
    # Adam-like updates have the size of lr even where the gradient is mere rounding, hence the
    # norm over everything; forgetting a micro-batch makes it about 1.
    error = (ours - theirs).norm() / theirs.norm().clamp_min(1e-12)
    bound = 0.35 if subject.precision in ("bf16", "fp16") else 0.02
    expect(error < bound, f"two micro-batches differ from one batch by {error:.3g} of the update")


def clips(subject: Subject) -> None:
    """P7: `max_grad_norm` is `clip_grad_norm_` before each step, and gradients are there.

    A loss a thousand times as large then makes no difference.
    """
    updates = []
    for scale in (1.0, 1024.0):
        model, optimizer = _clipping(subject)
        before = weights(model)
        _backward(subject, optimizer, loss_of(model, batch(0)) * scale)
        optimizer.step()
        updates.append(_updates(before, model))
    error = (updates[0] - updates[1]).norm() / updates[0].norm().clamp_min(1e-12)
    expect(error < CLOSE, f"a larger loss changes clipped updates by {error:.3g} of them")
    _clips_like_torch(subject)


def _clips_like_torch(subject: Subject) -> None:
    ours, optimizer = _clipping(subject)
    theirs, other = subject.start()
    detach(other)  # so that there are gradients after the backward pass
    # In the order of the groups, as the sum of squares rounds by order.
    trainable = [p for group in other.param_groups for p in group["params"]]
    for step in range(STEPS):
        ours.take_detour = step % 2 == 0
        _backward(subject, optimizer, loss_of(ours, batch(step)))
        optimizer.step()
        optimizer.zero_grad()
        backward(theirs, step)
        norm = torch.nn.utils.clip_grad_norm_(trainable, CLIP).item()
        expect(norm > CLIP, f"the gradient norm of step {step} is {norm}")
        other.step()
        other.zero_grad()
    wrong = differing(weights(theirs), weights(ours))
    expect(not wrong, f"max_grad_norm is not clip_grad_norm_ before the step: {wrong}")


def _clipping(subject: Subject) -> tuple[Model, Optimizer]:
    exact = {"clipping": "exact"} if subject.in_backward else {}
    return subject.start(max_grad_norm=CLIP, **exact)


def _backward(subject: Subject, optimizer: Optimizer, loss: Tensor) -> None:
    if subject.in_backward:
        grad_norm(optimizer, loss)
    loss.backward()  # type: ignore[no-untyped-call]


def _updates(start: dict[str, Tensor], model: Model) -> Tensor:
    named = weights(model)
    return torch.cat([(named[name].double() - start[name].double()).flatten() for name in start])
