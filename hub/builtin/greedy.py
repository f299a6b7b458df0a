"""GreedyLR (https://arxiv.org/abs/2512.14527): increases the rate while a metric improves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from torch.optim.lr_scheduler import ReduceLROnPlateau

from hub.builtin.learning_rates import read_rates, restore_rates, unshare_rates, write_rate
from hub.builtin.schedule_classes import as_metric, check_length, check_state
from hub.errors import OptimArgsError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import SupportsFloat

    from torch.optim import Optimizer

    Bound = float | Sequence[float]


class GreedyLR(ReduceLROnPlateau):
    """Increases the learning rates while a metric improves, and decreases them while it does not.

    Every step equals `transformers.GreedyLR` (5.23), and either can load the other's state dict.
    It is a `ReduceLROnPlateau`, so that trainers pass it a metric. The differences:

    - Learning rates outside `min_lr` and `max_lr` are an error. In Transformers they never reach
      the bounds, and the default `min_lr` of 1e-3 is above most rates used for fine-tuning.
    - Tensors are changed in place, and groups may join later, with their own learning rate.
    - A metric that is not finite leaves the average after its window; in Transformers it stays.
    - `verbose`, which only prints, does not exist.
    - Loading a state dict sets the groups' learning rates unless the optimizer's state has been
      loaded before. In Transformers it always sets them.

    As in Transformers, despite its documentation, `reset_start` does not count steps: it counts the
    decreases at which all groups are at `min_lr`, one for every `patience + 1` evaluations. When
    it is used up, all learning rates start again from their initial values.

    Args:
        optimizer: Its groups' learning rates are the initial values, also after a reset.
        mode: Whether a lower or a higher metric is better.
        factor: Below 1. Rates are multiplied by it to decrease them, and divided to increase them.
        patience: A change needs more than this many evaluations in a row with, or without, an
            improvement.
        threshold: How much better than the best value counts as an improvement.
        threshold_mode: Whether the threshold is a share of the best value or a difference.
        cooldown: Evaluations to ignore after a decrease.
        warmup: Evaluations to ignore after an increase.
        min_lr: The minimum learning rate, for all groups or one for each.
        max_lr: The maximum learning rate, for all groups or one for each.
        eps: The minimum change; smaller ones are skipped.
        smooth: Use the average of the last metrics.
        window_size: The number of metrics in that average.
        reset_start: Decreases with all groups at `min_lr` before a reset.

    Raises:
        OptimArgsError: A bound does not have one value for each group, or a group's learning rate
            is outside its bounds.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: Literal["min", "max"] = "min",
        factor: float = 0.95,
        patience: int = 10,
        threshold: float = 1e-6,
        threshold_mode: Literal["rel", "abs"] = "abs",
        cooldown: int = 0,
        warmup: int = 0,
        min_lr: Bound = 1e-3,
        max_lr: Bound = 1.0,
        eps: float = 1e-8,
        smooth: bool = False,
        window_size: int = 50,
        reset_start: int = 500,
    ) -> None:
        super().__init__(
            optimizer,
            mode=mode,
            factor=factor,
            patience=patience,
            threshold=threshold,
            threshold_mode=threshold_mode,
            cooldown=cooldown,
            eps=eps,
        )
        self.default_min_lr, self.min_lrs = _bounds(min_lr)
        self.default_max_lr, self.max_lrs = _bounds(max_lr)
        self.warmup = warmup
        self.warmup_counter = 0
        self.num_good_epochs = 0
        self.smooth = smooth
        self.window_size = window_size
        self._streaming_avg: dict[str, Any] = {"values": [], "sum": 0.0}
        self.reset_start = self.reset_start_original = reset_start
        self._init_lrs: list[float] = []
        self._include_new_groups()

    def step(  # type: ignore[override]  # as in torch, metric-driven schedules take it first
        self, metrics: SupportsFloat | None = None, epoch: int | None = None
    ) -> None:
        """Change the learning rates if the metric requires it.

        Args:
            metrics: The metric, one number, such as an evaluation's loss.
            epoch: Overwrites the count of evaluations, which has no effect.

        Raises:
            OptimArgsError: The metric is missing, or the bounds do not fit a group that has joined.
        """
        current = as_metric("greedy", metrics)
        self._include_new_groups()
        if self.smooth:
            current = self._smoothed(current)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = self.num_good_epochs = 0
        elif self.warmup_counter > 0:
            self.warmup_counter -= 1
            self.num_bad_epochs = self.num_good_epochs = 0
        else:
            self._judge(current)
        self._last_lr = read_rates(self.optimizer)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, here or in Transformers.

        Raises:
            CheckpointError: It is not the state of such a schedule; nothing is changed.
        """
        check_state(state_dict, "best", "num_bad_epochs", "num_good_epochs", "_last_lr")
        before = self._last_lr
        super().load_state_dict(state_dict)
        restore_rates(self.optimizer, before, self._last_lr)

    def _include_new_groups(self) -> None:
        """Record the bounds and the initial learning rates of groups that have joined."""
        groups = self.optimizer.param_groups
        known, count = len(self._init_lrs), len(groups)
        if known == count:
            return
        lowest = _of_each(self.min_lrs, self.default_min_lr, count)
        highest = _of_each(self.max_lrs, self.default_max_lr, count)
        check_length("greedy", "min_lr", lowest, self.optimizer)
        check_length("greedy", "max_lr", highest, self.optimizer)
        for index in range(known, count):
            _check_range(groups[index]["lr"], lowest[index], highest[index])
        unshare_rates(self.optimizer)
        self.min_lrs, self.max_lrs = lowest, highest
        self._init_lrs = [*self._init_lrs, *(float(group["lr"]) for group in groups[known:])]

    def _smoothed(self, value: float) -> float:
        """Return the average of the last metrics, from a running sum as Transformers keeps it."""
        values: list[float] = [*self._streaming_avg["values"], value]
        total: float = self._streaming_avg["sum"] + value
        if len(values) > self.window_size:
            total -= values.pop(0)
        if not math.isfinite(total):  # subtraction does not remove inf and nan
            total = sum(values)
        self._streaming_avg = {"window_size": self.window_size, "values": values, "sum": total}
        return total / len(values)

    def is_better(self, current: float, best: float) -> bool:
        """Return whether a metric improves on another by more than the threshold."""
        sign = -1 if self.mode == "min" else 1
        relative = self.threshold_mode == "rel"
        bar: float = (
            best * (1.0 + sign * self.threshold) if relative else best + sign * self.threshold
        )
        return current < bar if self.mode == "min" else current > bar

    def _judge(self, current: float) -> None:
        if self.is_better(current, self.best):
            self.best = current
            self.num_bad_epochs = 0
            self.num_good_epochs += 1
        else:
            self.num_bad_epochs += 1
            self.num_good_epochs = 0
        if self.num_good_epochs > self.patience:
            self._increase()
            self.warmup_counter = self.warmup
            self.num_good_epochs = 0
        elif self.num_bad_epochs > self.patience:
            self._decrease()
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0

    def _increase(self) -> None:
        for group, highest in zip(self.optimizer.param_groups, self.max_lrs, strict=True):
            old = float(group["lr"])
            new = min(old / self.factor, highest)
            if new - old > self.eps:
                write_rate(group, new)
        self.reset_start = self.reset_start_original

    def _decrease(self) -> None:
        groups = self.optimizer.param_groups
        for group, lowest in zip(groups, self.min_lrs, strict=True):
            old = float(group["lr"])
            new = max(old * self.factor, lowest)
            if old - new > self.eps:
                write_rate(group, new)
        # Compare tensors, not numbers: fp32 may have rounded up, and would stay above the minimum.
        if any(group["lr"] > low for group, low in zip(groups, self.min_lrs, strict=True)):
            return
        self.reset_start -= 1
        if self.reset_start <= 0:
            self._restart()

    def _restart(self) -> None:
        for group, lr in zip(self.optimizer.param_groups, self._init_lrs, strict=True):
            write_rate(group, lr)
        self.best = math.inf if self.mode == "min" else -math.inf
        self.num_bad_epochs = self.num_good_epochs = 0
        self.cooldown_counter = self.warmup_counter = 0
        self.reset_start = self.reset_start_original
        self._streaming_avg = {"values": [], "sum": 0.0}


def _bounds(bound: Bound) -> tuple[float | None, list[float]]:
    """Return the bound of all groups, present and future, and the list of bounds per group."""
    return (bound, []) if isinstance(bound, (int, float)) else (None, list(bound))


def _of_each(bounds: list[float], of_all: float | None, count: int) -> list[float]:
    """Return the bounds per group, filled up with the bound of all groups if there is one."""
    return bounds if of_all is None else [*bounds, *[of_all] * (count - len(bounds))]


def _check_range(lr: Any, lowest: float, highest: float) -> None:
    if lr < lowest:
        raise OptimArgsError(
            f"min_lr={lowest:g} is above the optimizer's learning rate, {float(lr):g}",
            where="schedule 'greedy'",
            fix=f"use a min_lr of at most {float(lr):g}",
        )
    if lr > highest:
        raise OptimArgsError(
            f"max_lr={highest:g} is below the optimizer's learning rate, {float(lr):g}",
            where="schedule 'greedy'",
            fix=f"use a max_lr of at least {float(lr):g}",
        )
