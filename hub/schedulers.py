"""`hub.build_scheduler`: a learning-rate schedule by name."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from hub.errors import HubWarning, OptimArgsError
from hub.options import resolve
from hub.registry import default_registry
from hub.spec import Trait

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from hub.spec import SchedulerSpec


def build_scheduler(
    name: str,
    optimizer: Optimizer,
    *,
    num_warmup_steps: int | None = None,
    num_training_steps: int | None = None,
    **kwargs: Any,
) -> LRScheduler:
    """Build the learning-rate schedule with this name.

    Args:
        name: One of `hub.list_schedulers()`.
        optimizer: Its groups' current learning rates are the peaks.
        num_warmup_steps: Optimizer steps of warm-up; None is none.
        num_training_steps: Optimizer steps of the whole run, warm-up included.
        kwargs: The schedule's own arguments, as in `transformers.get_scheduler`.

    Raises:
        UnknownOptimizerError: No installed plugin offers the schedule.
        OptimArgsError: An argument is unknown or wrong, or the schedule needs
            `num_training_steps`, or the warm-up is longer than the training.
        PluginError: The plugin cannot be used.
    """
    spec = default_registry().scheduler(name)
    options = resolve(name, spec.arguments, hyperparameters=kwargs)
    _check_steps(spec, num_warmup_steps, num_training_steps)
    _check_optimizer(spec, optimizer)
    return spec.build(optimizer, num_warmup_steps or 0, num_training_steps, options.model)


def _check_optimizer(spec: SchedulerSpec, optimizer: Optimizer) -> None:
    """Warn where an optimizer that anneals by itself is annealed once more."""
    plan = getattr(optimizer, "hub_plan", None)
    if plan is None or not spec.decays:
        return
    if Trait.SCHEDULE_FREE in default_registry().optimizer(plan.optimizer).traits:
        warnings.warn(
            f"{plan.optimizer} anneals by averaging, and '{spec.name}' lowers its learning rate on "
            "top of that; use 'constant' or 'constant_with_warmup'",
            HubWarning,
            stacklevel=3,
        )


def _check_steps(spec: SchedulerSpec, warmup: int | None, total: int | None) -> None:
    for key, value, lowest in (("num_warmup_steps", warmup, 0), ("num_training_steps", total, 1)):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (whole and value >= lowest):
            raise OptimArgsError(
                f"{key}={value!r} is not a number of steps",
                where=f"schedule '{spec.name}'",
                fix=f"a whole number from {lowest} on",
            )
    if spec.needs_training_steps and total is None:
        raise OptimArgsError(
            f"the schedule '{spec.name}' needs to know how long the training is",
            where=f"schedule '{spec.name}'",
            fix="give num_training_steps",
        )
    if warmup and total is not None and warmup > total:
        raise OptimArgsError(
            f"{warmup} warm-up steps do not fit into {total} training steps",
            where=f"schedule '{spec.name}'",
            fix="give fewer num_warmup_steps, or train longer",
        )
    if warmup and not spec.uses_warmup_steps:
        warnings.warn(
            f"the schedule '{spec.name}' has no warm-up: num_warmup_steps={warmup} has no effect; "
            "use 'constant_with_warmup'",
            HubWarning,
            stacklevel=3,
        )
