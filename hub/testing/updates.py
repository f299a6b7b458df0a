"""Checks of what steps do: P2, P3, P6, P7, P10."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from hub.conduct import detach
from hub.layerwise import grad_norm
from hub.spec import Trait
from hub.testing.comparing import weights
from hub.testing.expect import expect
from hub.testing.problem import batch, loss_of
from hub.testing.subject import LR, Subject, backward, differing, drowned, train

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from hub.testing.problem import Model

CLIP = 0.01
CLOSE = 0.1
ROUNDING = 1e-7  # of a learning rate that is kept in an fp32 tensor
STEPS = 6
"""RAdam's rectified phase, in which eps and betas count, begins at the sixth."""


def trains(subject: Subject) -> None:
    """P10: twenty steps on real text lower the loss and keep every number finite."""
    model, optimizer = subject.start()
    with torch.no_grad():
        first = loss_of(model, batch(1000, 32)).item()
    train(model, optimizer, 20)
    with torch.no_grad():
        last = loss_of(model, batch(1000, 32)).item()
    expect(math.isfinite(last), f"the loss is {last} after 20 steps")
    expect(last < first, f"the loss went from {first} to {last} in 20 steps")


def follows_lr(subject: Subject) -> None:
    """P2: what is written to `group["lr"]` is what the next update uses, and it reads back."""
    if not subject.has("lr"):
        return
    built, _ = _trained(subject, lr=LR / 4)
    written, optimizer = subject.start()
    _reads_back(optimizer, LR)
    _write_lr(optimizer, LR / 4)
    train(written, optimizer, STEPS)
    wrong = differing(weights(built), weights(written))
    expect(not wrong, f"lr as written to the groups is not what is used: {wrong}")
    _follows_schedule(subject)
    if Trait.SCHEDULE_FREE not in subject.spec.traits:
        _stands_still_at_zero(subject)


def _follows_schedule(subject: Subject) -> None:
    from torch.optim.lr_scheduler import LambdaLR

    factors = [1.0, 0.25, 0.5, 0.125, 1.0]
    model, optimizer = subject.start()
    schedule = LambdaLR(optimizer, factors.__getitem__)
    by_hand, other = subject.start()
    for step in range(len(factors) - 1):
        _reads_back(optimizer, LR * factors[step])
        _write_lr(other, LR * factors[step])
        train(model, optimizer, 1, step, after_step=schedule.step)
        train(by_hand, other, 1, step)
    wrong = differing(weights(by_hand), weights(model))
    expect(not wrong, f"a scheduler's lr is not what is used: {wrong}")


def _reads_back(optimizer: Optimizer, lr: float) -> None:
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    expect(all(abs(rate - lr) < ROUNDING for rate in rates), f"lr {lr} reads back as {rates}")


def _stands_still_at_zero(subject: Subject) -> None:
    model, optimizer = subject.start()
    train(model, optimizer, STEPS)
    before = weights(model)
    _write_lr(optimizer, 0.0)
    train(model, optimizer, 1, STEPS)
    after = weights(model)
    if subject.precision == "bf16" and Trait.COMPENSATED in subject.spec.traits:
        # What earlier updates left over may still carry a weight to the next number.
        for name in before:
            torch.testing.assert_close(after[name], before[name], rtol=2**-7, atol=0)
    else:
        moved = differing(before, after)
        expect(not moved, f"parameters move at lr 0: {moved}")


def decay(subject: Subject) -> None:
    """P3: weight decay moves exactly the decayed parameters, with the value asked for."""
    if not subject.has("weight_decay"):
        return
    model, optimizer = subject.start(weight_decay=0.25)
    decayed = set()
    for group in optimizer.param_groups:
        value = group["weight_decay"]
        expect(value in (0.0, 0.25), f"group {group['name']} decays by {value}, not 0.25 or 0")
        if value:
            decayed |= set(group["param_names"])
    named = dict(model.named_parameters())
    wrong = [n for n in named if n in decayed and (named[n].ndim < 2 or "norm" in n)]  # noqa: PLR2004
    expect(not wrong, f"decayed, and should not be: {wrong}")
    with torch.no_grad():
        for parameter in named.values():  # zeros cannot show decay
            parameter.add_(1.0)
    before = weights(model)
    for _ in range(STEPS):
        for parameter in named.values():
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        optimizer.step()
    moved = set(differing(before, weights(model)))
    expect(
        moved == decayed,
        f"with gradients of zero, decay should move {sorted(decayed)}, and moves {sorted(moved)}",
    )


def hyperparameters(subject: Subject) -> None:
    """P3: the betas and eps asked for reach every parameter, in every group."""
    usual, optimizer = _pushed(subject)
    trainable = {name for name, p in usual.named_parameters() if p.requires_grad}
    defaults = {name: field.default for name, field in subject.spec.arguments.model_fields.items()}
    for name, value in _other_values(defaults).items():
        if name not in subject.spec.per_group:
            continue
        for group in optimizer.param_groups:
            if name in group:
                expected = {**defaults, **subject.spec.trial}[name]
                expect(_plain(group[name]) == _plain(expected), f"{name} is {group[name]}")
        changed, _ = _pushed(subject, **{name: value})
        moved = set(differing(weights(usual), weights(changed)))
        unreached = trainable - moved - drowned(subject)
        expect(not unreached, f"{name}={value} does not reach {sorted(unreached)}")


def _other_values(defaults: dict[str, Any]) -> dict[str, Any]:
    """Return values that are sure to change every update."""
    values: dict[str, Any] = {}
    betas, eps = defaults.get("betas"), defaults.get("eps")
    if isinstance(betas, tuple):
        values["betas"] = (0.5, *(0.7 for _ in betas[1:]))
    if isinstance(eps, float):
        values["eps"] = 0.5
    return values


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


def _trained(subject: Subject, **arguments: Any) -> tuple[Model, Optimizer]:
    model, optimizer = subject.start(**arguments)
    train(model, optimizer, STEPS)
    return model, optimizer


def _pushed(subject: Subject, **arguments: Any) -> tuple[Model, Optimizer]:
    """Take steps on given gradients, so that what one parameter does shows in no other."""
    model, optimizer = subject.start(**arguments)
    for step in range(STEPS):
        for index, parameter in enumerate(model.parameters()):
            if parameter.requires_grad:
                generator = torch.Generator().manual_seed(100 * step + index)
                grad = torch.randn(parameter.shape, generator=generator)
                parameter.grad = grad.to(parameter)
        optimizer.step()
    return model, optimizer


def _updates(start: dict[str, Tensor], model: Model) -> Tensor:
    named = weights(model)
    return torch.cat([(named[name].double() - start[name].double()).flatten() for name in start])


def _write_lr(optimizer: Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
