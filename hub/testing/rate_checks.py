"""Checks that learning rates are what the groups say: P2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from hub.building.verify import ROUNDING
from hub.spec import Trait
from hub.testing.comparing import weights
from hub.testing.expect import expect
from hub.testing.subject import (
    STEPS,
    Subject,
    differing,
    may_round_away,
    train,
    train_on_fixed_gradients,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.optim import Optimizer

    from hub.testing.kit_model import Model

LOWER = 0.25


def follows_lr(subject: Subject) -> None:
    """P2: what is written to `group["lr"]` is what the next update uses, and it reads back.

    Groups whose rates are at a fixed ratio to `lr` keep it.
    """
    if not subject.has("lr"):
        return
    built = train_at(subject, **_arguments(subject, LOWER))
    written, optimizer = subject.start()
    first = rates(optimizer)
    write(optimizer, first, LOWER)
    train(written, optimizer, STEPS)
    wrong = differing(weights(built), weights(written))
    expect(not wrong, f"lr as written to the groups is not what is used: {wrong}")
    _follows_schedule(subject)
    if not subject.any_has(Trait.SCHEDULE_FREE):
        _stands_still_at_zero(subject)


def train_at(subject: Subject, **arguments: Any) -> Model:
    """Return a model after steps with these arguments."""
    model, optimizer = subject.start(**arguments)
    train(model, optimizer, STEPS)
    return model


def _arguments(subject: Subject, factor: float) -> dict[str, float]:
    """Return all learning rates among the arguments, multiplied."""
    spec = subject.spec
    defaults = {key: spec.arguments.model_fields[key].default for key in spec.other_rates}
    usual = {**defaults, **spec.example_arguments, "lr": subject.lr}
    return {key: usual[key] * factor for key in ("lr", *spec.other_rates)}


def rates(optimizer: Optimizer) -> list[float]:
    """Return each group's learning rate, as a number."""
    return [float(group["lr"]) for group in optimizer.param_groups]


def write(optimizer: Optimizer, first: Sequence[float], *factors: float) -> None:
    """Write the first learning rates times a factor, or times one factor for each group."""
    each = factors if len(factors) > 1 else factors * len(first)
    for group, lr, factor in zip(optimizer.param_groups, first, each, strict=True):
        group["lr"] = lr * factor


def _follows_schedule(subject: Subject) -> None:
    factors = [1.0, 0.25, 0.5, 0.125, 1.0]
    model, optimizer = subject.start()
    first = rates(optimizer)
    schedule = LambdaLR(optimizer, factors.__getitem__)
    by_hand, other = subject.start()
    for step in range(len(factors) - 1):
        _reads_back(optimizer, [lr * factors[step] for lr in first])
        write(other, first, factors[step])
        train(model, optimizer, 1, step, after_step=schedule.step)
        train(by_hand, other, 1, step)
    wrong = differing(weights(by_hand), weights(model))
    expect(not wrong, f"a scheduler's lr is not what is used: {wrong}")


def _reads_back(optimizer: Optimizer, expected: Sequence[float]) -> None:
    found = rates(optimizer)
    pairs = zip(found, expected, strict=True)
    same = all(abs(lr - wanted) <= ROUNDING * abs(wanted) for lr, wanted in pairs)
    expect(same, f"the learning rates {list(expected)} read back as {found}")


def _stands_still_at_zero(subject: Subject) -> None:
    model, optimizer = subject.start()
    train(model, optimizer, STEPS)
    before = weights(model)
    write(optimizer, rates(optimizer), 0.0)
    train(model, optimizer, 1, STEPS)
    after = weights(model)
    if subject.precision == "bf16" and subject.any_has(Trait.COMPENSATED):
        # What earlier updates left over may still carry a weight to the next number.
        for name in before:
            torch.testing.assert_close(after[name], before[name], rtol=2**-7, atol=0)
    else:
        moved = differing(before, after)
        expect(not moved, f"parameters move at lr 0: {moved}")


def own_lr(subject: Subject) -> None:
    """P2: each group uses its own learning rate, where all groups have different ones."""
    if not subject.has("lr"):
        return
    groups = subject.start()[1].param_groups
    factors = [2.0**-index for index in range(len(groups))]
    mixed = _trained_at(subject, factors)
    silent = may_round_away(subject)
    for index, group in enumerate(groups):
        changed = [*factors[:index], factors[index] / 4, *factors[index + 1 :]]
        moved = set(differing(weights(mixed), weights(_trained_at(subject, changed))))
        own = set(group["param_names"])
        still = own - moved - silent
        expect(not still, f"lr of group '{group['name']}' is not what is used for {sorted(still)}")
        others = moved - own if subject.all_have(Trait.PER_PARAMETER) else set()
        expect(
            not others,
            f"lr of group '{group['name']}' moves {sorted(others)}, which are in other groups",
        )


def _trained_at(subject: Subject, factors: Sequence[float]) -> Model:
    model, optimizer = subject.start()
    write(optimizer, rates(optimizer), *factors)
    return train_on_fixed_gradients(model, optimizer, STEPS)
