"""torch's schedules, fixed for groups that join later and for learning rates that are tensors."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from hub.builtin.learning_rates import restore_rates, unshare_rates, write_rate
from hub.errors import CheckpointError, OptimArgsError
from hub.running.steps import unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import SupportsFloat

    from torch.optim import Optimizer


class CurveSchedule(LambdaLR):
    """A factor on every group's learning rate that depends only on the step.

    For a group that is added to the optimizer later, the factor applies from its first step on, to
    the learning rate that the group is added with. torch 2.13 raises an error at the schedule's
    next `step` instead, and 2.6 ignores the group.

    A tensor gets the rate that a number would have, rounded once: the peaks are kept as numbers.

    Args:
        optimizer: Its groups' learning rates are the peaks. torch 2.13 uses the rates that the
            optimizer's first schedule found, even after that schedule's end and from a loaded state
            dict; this class does so only until a step is taken under another schedule, as when
            several are built for a `SequentialLR`.
        factor: Maps the optimizer step, counted from 0, to the factor on the peaks.
        last_epoch: The last step taken, counted from 0, or -1 for none. If a step was taken, the
            peaks are the groups' `initial_lr`, which an optimizer's state dict contains.

    Raises:
        OptimArgsError: A last step is passed, but a group has no `initial_lr`.
    """

    def __init__(
        self, optimizer: Optimizer, factor: Callable[[int], float], last_epoch: int = -1
    ) -> None:
        unshare_rates(optimizer)
        if last_epoch == -1 and not _is_followed(optimizer):
            for group in optimizer.param_groups:
                group["initial_lr"] = float(group["lr"])
        elif last_epoch != -1:
            _check_peaks(optimizer)
        super().__init__(optimizer, factor, last_epoch)
        reference = weakref.ref(self)

        def take_in(*_: object) -> None:
            schedule = reference()
            if schedule is not None:
                schedule.take_in_late_groups()

        handle = unwrapped(optimizer).register_step_pre_hook(take_in)
        weakref.finalize(self, handle.remove).atexit = False

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rates of the current step."""
        self.take_in_late_groups()
        return super().get_lr()

    def take_in_late_groups(self) -> None:
        """Include groups that joined since the last step; the schedule calls this itself."""
        late = self.optimizer.param_groups[len(self.base_lrs) :]
        if not late:
            return
        unshare_rates(self.optimizer)
        # New lists, because earlier state dicts share the old ones.
        self.base_lrs = [*self.base_lrs, *(_peak(group) for group in late)]
        self.lr_lambdas = self.lr_lambdas[:1] * len(self.base_lrs)
        for group in late:
            write_rate(group, _peak(group) * self.lr_lambdas[0](self.last_epoch))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, here or in Transformers.

        It may include groups that joined later and are added here only after this call. The groups
        get the loaded learning rates, unless the optimizer's state has been loaded before.

        Raises:
            CheckpointError: It is not the state of such a schedule; nothing is changed.
        """
        check_state(state_dict, "lr_lambdas", "base_lrs", "last_epoch", "_last_lr")
        before = self._last_lr
        self.lr_lambdas = self.lr_lambdas[:1] * len(state_dict["lr_lambdas"])
        super().load_state_dict(state_dict)
        restore_rates(self.optimizer, before, self._last_lr)


class PlateauSchedule(ReduceLROnPlateau):
    """`torch.optim.lr_scheduler.ReduceLROnPlateau`, also for tensors.

    A group that is added later starts from its own learning rate, and is reduced with the others.
    """

    def __init__(self, optimizer: Optimizer, **arguments: Any) -> None:
        check_length("reduce_lr_on_plateau", "min_lr", arguments.get("min_lr"), optimizer)
        super().__init__(optimizer, **arguments)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, here or in torch; raises as `CurveSchedule` does."""
        check_state(state_dict, "best", "num_bad_epochs", "last_epoch")
        super().load_state_dict(state_dict)

    def step(  # type: ignore[override]  # as in torch, metric-driven schedules take it first
        self, metrics: SupportsFloat | None = None, epoch: int | None = None
    ) -> None:
        """Reduce the learning rates if the metric has not improved for too long.

        Raises:
            OptimArgsError: The metric is missing, or a group has joined and `min_lr` is a list.
        """
        value = as_metric("reduce_lr_on_plateau", metrics)
        if self.default_min_lr is None:
            check_length("reduce_lr_on_plateau", "min_lr", self.min_lrs, self.optimizer)
        unshare_rates(self.optimizer)
        tensors = [
            (group, group["lr"])
            for group in self.optimizer.param_groups
            if isinstance(group["lr"], Tensor)
        ]
        super().step(value, epoch)
        for group, tensor in tensors:
            # torch 2.6 replaces the tensor by a number, 2.13 does not (pytorch#163093).
            if group["lr"] is not tensor:
                group["lr"] = tensor.fill_(group["lr"])


class AdafactorSchedule(LambdaLR):
    """Copies the learning rate that Adafactor computes to its groups, so that trainers can log it.

    It works like `transformers.optimization.AdafactorSchedule` (5.23), for every class with the
    same `_get_lr`. Transformers checks which groups have gradients, so it reports `initial_lr` once
    they are freed and fails if only some groups have any; this checks which have been stepped.

    Args:
        optimizer: An Adafactor with `relative_step=True` in all groups.
        initial_lr: The value to report for a group before its first step.

    Raises:
        OptimArgsError: The optimizer is not such an Adafactor. With `relative_step=False` it would
            train with the reported value.
    """

    def __init__(self, optimizer: Optimizer, initial_lr: float) -> None:
        computes = hasattr(unwrapped(optimizer), "_get_lr") and all(
            group.get("relative_step") for group in optimizer.param_groups
        )
        if not computes:
            raise OptimArgsError(
                f"{type(unwrapped(optimizer)).__name__} does not compute its own learning rate",
                where="schedule 'adafactor'",
                fix="build 'adafactor' with relative_step=True, or use another schedule",
            )
        for group in optimizer.param_groups:
            group["initial_lr"] = initial_lr
        super().__init__(optimizer, lambda _: 1.0)
        for group in optimizer.param_groups:
            del group["initial_lr"]  # not a peak for a schedule that may follow

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of each group's last step."""
        return [self._reported(group) for group in self.optimizer.param_groups]

    def _reported(self, group: dict[str, Any]) -> float | Tensor:
        adafactor = unwrapped(self.optimizer)
        for parameter in group["params"]:
            if parameter in adafactor.state:
                return float(adafactor._get_lr(group, adafactor.state[parameter]))  # noqa: SLF001
        return self.base_lrs[0]


def as_metric(name: str, value: SupportsFloat | None) -> float:
    """Return the metric passed to a schedule's `step` as a float.

    Raises:
        OptimArgsError: It is not a number.
    """
    try:
        return float(value)  # type: ignore[arg-type]  # None is one of the wrong types
    except (TypeError, ValueError, RuntimeError) as error:
        raise OptimArgsError(
            f"step() of '{name}' got {'no metric' if value is None else type(value).__name__}",
            where=f"schedule '{name}'",
            fix="pass the metric as a number, such as step(evaluation_loss)",
        ) from error


def check_state(state: object, *keys: str) -> None:
    """Check that a schedule's state dict has the required keys.

    Raises:
        CheckpointError: A key is missing, or it is not a mapping.
    """
    lacking = [key for key in keys if not isinstance(state, Mapping) or key not in state]
    if lacking:
        raise CheckpointError(
            f"the state dict has no '{lacking[0]}', so it is not from such a schedule",
            where="load_state_dict of a schedule",
            fix="pass what state_dict() of a schedule with the same name returned",
        )


def check_length(name: str, key: str, bound: Any, optimizer: Optimizer) -> None:
    """Check that a bound is one number, or has one number for each group.

    Raises:
        OptimArgsError: It does not have as many numbers as there are groups.
    """
    groups = len(optimizer.param_groups)
    if isinstance(bound, (list, tuple)) and len(bound) != groups:
        raise OptimArgsError(
            f"{key} has {len(bound)} values for {groups} parameter groups",
            where=f"argument '{key}' of {name}",
            fix=f"use one number for all groups; for a group that joined later, append to {key}s",
        )


def _is_followed(optimizer: Optimizer) -> bool:
    """Return whether another schedule has set the peaks, and no step has been taken since.

    torch (2.6 to 2.13, `LRScheduler.__init__`) wraps `step` to detect whether it is called.
    """
    watched = hasattr(optimizer.step, "_wrapped_by_lr_sched")
    stepped = getattr(optimizer, "_opt_called", False)
    return watched and not stepped and all("initial_lr" in g for g in optimizer.param_groups)


def _check_peaks(optimizer: Optimizer) -> None:
    for number, group in enumerate(optimizer.param_groups):
        if "initial_lr" not in group:
            raise OptimArgsError(
                f"parameter group {number} has no 'initial_lr', the peak of its learning rate",
                where="argument 'last_epoch'",
                fix="load the optimizer's state dict first, or omit last_epoch and load the "
                "schedule's state dict",
            )


def _peak(group: dict[str, Any]) -> float:
    """Return the learning rate that a group's factor applies to, stored under torch's key."""
    peak: float = group.setdefault("initial_lr", float(group["lr"]))
    return peak
