"""GreedyLR (https://arxiv.org/abs/2512.14527): raise while a metric improves, else lower."""

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
    """Learning rates that rise while a metric improves, and fall while it does not.

    Equal to `transformers.GreedyLR` (5.23) in every step, and state dicts go both ways. A
    `ReduceLROnPlateau`, so that trainers know to hand it a metric. What differs:

    - Learning rates outside of `min_lr` and `max_lr` are an error. There they would never reach
      the bound, and with the default `min_lr` of 1e-3 that is most of what is fine-tuned with.
    - Tensors are changed in place, and groups may join later, from their own learning rate.
    - A metric that is not finite leaves the average when its window has passed; there it stays.
    - No `verbose`, which only prints.
    - Loading a state dict sets the groups' learning rates unless the optimizer's own has been
      loaded before; it sets them in any case there.

    What does not, though its documentation reads otherwise: `reset_start` counts the reductions
    that find all groups at `min_lr`, which come every `patience + 1` evaluations, and not steps.

    Args:
        optimizer: Its groups' learning rates are what it starts from, and what it is reset to.
        mode: Whether the metric is better when it is lower or higher.
        factor: Below 1. Rates are multiplied by it to lower them, and divided to raise them.
        patience: Evaluations in a row with, or without, an improvement before a change.
        threshold: How much better than the best counts as improvement.
        threshold_mode: Whether that is a share of the best or a difference.
        cooldown: Evaluations after a reduction that do not count.
        warmup: Evaluations after a raise that do not count.
        min_lr: The lowest learning rate, for all groups or one for each.
        max_lr: The highest, likewise.
        eps: A smaller change is left out.
        smooth: Judge the average of the last metrics.
        window_size: Of how many.
        reset_start: Reductions without effect before all starts anew.

    Raises:
        OptimArgsError: A bound does not have one value for each group, or a group's learning rate
            lies outside of its bounds.
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
        self._take_in_groups()

    def step(  # type: ignore[override]  # as in torch, the schedules by metric take one first
        self, metrics: SupportsFloat | None = None, epoch: int | None = None
    ) -> None:
        """Change the learning rates if the metric says so.

        Args:
            metrics: One number, such as an evaluation's loss.
            epoch: Overwrites the count of evaluations, which decides nothing.

        Raises:
            OptimArgsError: There is no metric, or a group has joined that the bounds do not fit.
        """
        current = as_metric("greedy", metrics)
        self._take_in_groups()
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
            CheckpointError: It is no state of such a schedule; nothing is changed.
        """
        check_state(state_dict, "best", "num_bad_epochs", "num_good_epochs", "_last_lr")
        before = self._last_lr
        super().load_state_dict(state_dict)
        restore_rates(self.optimizer, before, self._last_lr)

    def _take_in_groups(self) -> None:
        """Note the bounds and the initial learning rate of groups that are new here."""
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
        """Return the average of the last metrics, by the running sum that Transformers keeps."""
        values: list[float] = [*self._streaming_avg["values"], value]
        total: float = self._streaming_avg["sum"] + value
        if len(values) > self.window_size:
            total -= values.pop(0)
        if not math.isfinite(total):  # inf and nan do not go away by subtraction
            total = sum(values)
        self._streaming_avg = {"window_size": self.window_size, "values": values, "sum": total}
        return total / len(values)

    def is_better(self, current: float, best: float) -> bool:
        """Whether a metric improves on another by more than the threshold."""
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
            self._raise()
            self.warmup_counter = self.warmup
            self.num_good_epochs = 0
        elif self.num_bad_epochs > self.patience:
            self._lower()
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0

    def _raise(self) -> None:
        for group, highest in zip(self.optimizer.param_groups, self.max_lrs, strict=True):
            old = float(group["lr"])
            new = min(old / self.factor, highest)
            if new - old > self.eps:
                write_rate(group, new)
        self.reset_start = self.reset_start_original

    def _lower(self) -> None:
        groups = self.optimizer.param_groups
        for group, lowest in zip(groups, self.min_lrs, strict=True):
            old = float(group["lr"])
            new = max(old * self.factor, lowest)
            if old - new > self.eps:
                write_rate(group, new)
        # Of a tensor not the number: fp32 may have rounded it up, and it would never be lowest.
        if any(group["lr"] > low for group, low in zip(groups, self.min_lrs, strict=True)):
            return
        self.reset_start -= 1
        if self.reset_start <= 0:
            self._start_anew()

    def _start_anew(self) -> None:
        for group, lr in zip(self.optimizer.param_groups, self._init_lrs, strict=True):
            write_rate(group, lr)
        self.best = math.inf if self.mode == "min" else -math.inf
        self.num_bad_epochs = self.num_good_epochs = 0
        self.cooldown_counter = self.warmup_counter = 0
        self.reset_start = self.reset_start_original
        self._streaming_avg = {"values": [], "sum": 0.0}


def _bounds(bound: Bound) -> tuple[float | None, list[float]]:
    """Return the bound of every group, also of those to come, or the list of each one's."""
    return (bound, []) if isinstance(bound, (int, float)) else (None, list(bound))


def _of_each(bounds: list[float], of_all: float | None, count: int) -> list[float]:
    """Return a bound for each group, as far as there are some."""
    return bounds if of_all is None else [*bounds, *[of_all] * (count - len(bounds))]


def _check_range(lr: Any, lowest: float, highest: float) -> None:
    if lr < lowest:
        raise OptimArgsError(
            f"min_lr={lowest:g} is above the optimizer's learning rate, {float(lr):g}",
            where="schedule 'greedy'",
            fix=f"give a min_lr below {float(lr):g}",
        )
    if lr > highest:
        raise OptimArgsError(
            f"max_lr={highest:g} is below the optimizer's learning rate, {float(lr):g}",
            where="schedule 'greedy'",
            fix=f"give a max_lr above {float(lr):g}",
        )
