"""Check that an optimizer and a schedule fit together, with one function per rule.

What an optimizer schedules by itself is read from its groups, where torch's optimizers keep all
their arguments: `warmup_steps`, and `relative_step` (Adafactor). So the rules also apply to
optimizers that hub did not build. The schedule `adafactor` checks its optimizer itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hub.errors import UnknownOptimizerError, UnsupportedError
from hub.names.registry import default_registry
from hub.running.steps import members_of, unwrapped
from hub.spec import Finding, Trait

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.optim import Optimizer

    from hub.spec import SchedulerSpec


@dataclass(frozen=True)
class Pairing:
    """An optimizer and the schedule that will drive it."""

    optimizer: Optimizer
    schedule: SchedulerSpec
    num_warmup_steps: int
    evaluates: bool = True
    """False if the trainer's arguments say that no metric is ever measured."""


def pairing_findings(pairing: Pairing) -> list[Finding]:
    """Return what is wrong with a pairing."""
    return [finding for rule in RULES for finding in [rule(pairing)] if finding]


def _anneals_twice(pairing: Pairing) -> Finding | None:
    if not pairing.schedule.decays:
        return None
    plans = [getattr(one, "hub_plan", None) for one in members_of(unwrapped(pairing.optimizer))]
    names = [plan.optimizer for plan in plans if plan is not None]
    name = next((name for name in names if Trait.SCHEDULE_FREE in _traits(name)), None)
    if name is None:
        return None
    return Finding.warn(
        f"{name} anneals by averaging, and '{pairing.schedule.name}' lowers its learning "
        "rate on top of that",
        "use 'constant' or 'constant_with_warmup'",
    )


def _warms_up_twice(pairing: Pairing) -> Finding | None:
    own = _own(pairing.optimizer, "warmup_steps")
    if not (own and pairing.num_warmup_steps and pairing.schedule.uses_warmup_steps):
        return None
    return Finding.warn(
        f"the optimizer warms up by itself for {own} steps, and '{pairing.schedule.name}' "
        f"for {pairing.num_warmup_steps} at the same time",
        "build the optimizer with warmup_steps=0, or the schedule without warm-up",
    )


def _warmup_without_effect(pairing: Pairing) -> Finding | None:
    if pairing.schedule.uses_warmup_steps or not pairing.num_warmup_steps:
        return None
    return Finding.warn(
        f"the schedule '{pairing.schedule.name}' has no warm-up: num_warmup_steps="
        f"{pairing.num_warmup_steps} has no effect",
        "use 'constant_with_warmup'",
    )


def _rate_is_computed(pairing: Pairing) -> Finding | None:
    """Refuse what cannot work: the groups' `lr`, which schedules multiply, is None."""
    if not _own(pairing.optimizer, "relative_step"):
        return None
    if pairing.schedule.name == "adafactor":
        return None
    return Finding.refuse(
        UnsupportedError(
            f"with relative_step=True the optimizer computes its learning rate itself, and "
            f"'{pairing.schedule.name}' cannot change it",
            where=f"schedule '{pairing.schedule.name}'",
            fix="use the schedule 'adafactor', or relative_step=False with an lr",
        )
    )


def _no_metric(pairing: Pairing) -> Finding | None:
    if pairing.evaluates or not pairing.schedule.needs_metric:
        return None
    return Finding.warn(
        f"'{pairing.schedule.name}' follows a metric, and eval_strategy='no' measures none",
        "set eval_strategy to 'steps' or 'epoch', and call step(metric) there",
    )


RULES: tuple[Callable[[Pairing], Finding | None], ...] = (
    _anneals_twice,
    _warms_up_twice,
    _warmup_without_effect,
    _rate_is_computed,
    _no_metric,
)


def _own(optimizer: Optimizer, argument: str) -> Any:
    return next((g[argument] for g in optimizer.param_groups if g.get(argument)), None)


def _traits(name: str) -> frozenset[Trait]:
    try:
        return default_registry().optimizer(name).traits
    except UnknownOptimizerError:  # a class or factory without a plugin
        return frozenset()
