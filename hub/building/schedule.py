"""`hub.build_scheduler`: a learning-rate schedule by name."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from hub.arguments.checks import check_whole_number
from hub.arguments.resolve import resolve_arguments
from hub.building.pairing import Pairing, pairing_findings
from hub.errors import HubWarning, OptimArgsError
from hub.names.registry import default_registry
from hub.running.steps import unwrapped
from hub.spec import Level

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        optimizer: Its groups' current learning rates are the peaks; with `last_epoch`, their
            `initial_lr`.
        num_warmup_steps: Optimizer steps of warm-up; None: no warm-up.
        num_training_steps: Optimizer steps of the whole run, warm-up included.
        kwargs: The schedule's own arguments, as in `transformers.get_scheduler`.

    Raises:
        UnknownOptimizerError: No installed plugin offers the schedule.
        OptimArgsError: An argument is unknown or wrong, or the schedule needs
            `num_training_steps`, or the warm-up is longer than the training.
        UnsupportedError: The optimizer cannot follow the schedule; see `hub.building.pairing`.
        PluginError: The plugin cannot be used.
    """
    return build_scheduler_from(name, optimizer, num_warmup_steps, num_training_steps, kwargs)


def build_scheduler_from(
    name: str,
    optimizer: Optimizer,
    warmup: int | None,
    total: int | None,
    arguments: Mapping[str, Any],
    *,
    evaluates: bool = True,
) -> LRScheduler:
    """Build as `build_scheduler` does; `evaluates` says whether a metric is ever measured."""
    spec = default_registry().scheduler(name)
    unwrapped(optimizer)  # raises if it is not an optimizer
    options = resolve_arguments(name, spec.arguments, hyperparameters=arguments)
    _check_steps(spec, warmup, total)
    check_pairing(Pairing(optimizer, spec, warmup or 0, evaluates))
    return spec.build(optimizer, warmup or 0, total, options.model)


def check_pairing(pairing: Pairing) -> None:
    """Warn about what is wrong with a pairing.

    Raises:
        UnsupportedError: The optimizer cannot follow the schedule.
    """
    findings = pairing_findings(pairing)
    for finding in findings:
        if finding.level is Level.REFUSE:
            raise finding.error(finding.what, finding.where, finding.fix)
    for finding in findings:
        warnings.warn(str(finding), HubWarning, stacklevel=4)


def _check_steps(spec: SchedulerSpec, warmup: int | None, total: int | None) -> None:
    where = f"schedule '{spec.name}'"
    for key, value, lowest in (("num_warmup_steps", warmup, 0), ("num_training_steps", total, 1)):
        if value is not None:
            check_whole_number(key, value, "steps", lowest=lowest, where=where)
    if spec.needs_training_steps and total is None:
        raise OptimArgsError(
            f"the schedule '{spec.name}' needs the length of the training",
            where=where,
            fix="pass num_training_steps",
        )
    if warmup and total is not None and warmup > total:
        raise OptimArgsError(
            f"{warmup} warm-up steps do not fit into {total} training steps",
            where=where,
            fix="use a smaller num_warmup_steps, or train longer",
        )
