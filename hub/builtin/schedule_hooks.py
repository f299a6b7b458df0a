"""The built-in learning-rate schedules: their names and typed arguments."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from hub.arguments import Arguments
from hub.builtin import curves
from hub.errors import HubWarning, OptimArgsError
from hub.hookspecs import hookimpl
from hub.spec import SchedulerSpec

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from hub.builtin.greedy import GreedyLR
    from hub.builtin.schedule_classes import AdafactorSchedule, CurveSchedule, PlateauSchedule

Rate = Annotated[float, Field(ge=0)]


def _not_negative(bound: float | tuple[float, ...]) -> float | tuple[float, ...]:
    if min(bound, default=0.0) < 0 if isinstance(bound, tuple) else bound < 0:
        raise ValueError("a learning rate cannot be negative")
    return bound


Rates = Annotated[float | tuple[float, ...], AfterValidator(_not_negative)]


class CurveArguments(Arguments):
    """Arguments of schedules that depend only on the step, besides the numbers of steps."""

    last_epoch: int = Field(default=-1, ge=-1)
    """The last step taken, counted from 0, to resume from with the groups' `initial_lr`; -1 if no
    step was taken."""


class CosineArguments(CurveArguments):
    """Arguments of the cosine schedule."""

    num_cycles: float = 0.5
    """Number of cosine waves; the default is half a wave, from the peak to 0."""


class RestartsArguments(CurveArguments):
    """Arguments of the cosine schedule with restarts."""

    num_cycles: PositiveInt = 1
    """How often the learning rate falls from its peak to 0."""


class PolynomialArguments(CurveArguments):
    """Arguments of the polynomial schedule."""

    lr_end: float = Field(default=1e-7, ge=0)
    """The final learning rate; below the optimizer's."""
    power: float = 1.0
    """Power of the remaining share of the training."""


class InverseSqrtArguments(CurveArguments):
    """Arguments of the inverse square root schedule."""

    timescale: PositiveInt | None = None
    """Steps after the warm-up in which the learning rate falls to 1/√2 of its peak; None uses the
    warm-up steps, or 10,000 without a warm-up."""


class MinLRArguments(CosineArguments):
    """Arguments of the cosine schedule with a minimum: either `min_lr` or `min_lr_rate`."""

    min_lr: float | None = Field(default=None, ge=0)
    """The minimum learning rate."""
    min_lr_rate: float | None = Field(default=None, ge=0, le=1)
    """The minimum learning rate, as a share of the peak."""

    @model_validator(mode="after")
    def _has_one_minimum(self) -> Self:
        if (self.min_lr is None) == (self.min_lr_rate is None):
            raise ValueError("use either min_lr or min_lr_rate")
        return self


class WarmupMinLRArguments(MinLRArguments):
    """Arguments of the cosine schedule with a minimum and a first learning rate."""

    warmup_lr_rate: float | None = Field(default=None, ge=0)
    """The first learning rate, as a share of the peak; None uses 1 / warm-up steps."""


class StableArguments(CurveArguments):
    """Arguments of the schedule of warm-up, stable phase and decay."""

    num_decay_steps: int = Field(ge=0)
    """Steps of the decay, at the end of the training."""
    num_stable_steps: int | None = Field(default=None, ge=0)
    """Steps at the peak; None uses the steps between warm-up and decay."""
    warmup_type: Literal["linear", "cosine", "1-sqrt"] = "linear"
    """Shape of the warm-up."""
    decay_type: Literal["linear", "cosine", "1-sqrt"] = "cosine"
    """Shape of the decay."""
    min_lr_ratio: float = Field(default=0.0, ge=0, le=1)
    """The learning rate at the start and at the end, as a share of the peak."""
    num_cycles: float = 0.5
    """Number of waves of a cosine decay."""


class MetricArguments(Arguments):
    """Arguments of schedules that follow a metric. An evaluation is a call of `step(metric)`."""

    mode: Literal["min", "max"] = "min"
    """Whether a lower or a higher metric is better."""
    patience: int = Field(default=10, ge=0)
    """The learning rate changes after more than this many evaluations in a row."""
    cooldown: int = Field(default=0, ge=0)
    """Evaluations to ignore after a reduction."""
    eps: float = Field(default=1e-8, ge=0)
    """The minimum change of the learning rate; smaller ones are skipped."""


class PlateauArguments(MetricArguments):
    """Arguments of `torch.optim.lr_scheduler.ReduceLROnPlateau`."""

    factor: float = Field(default=0.1, gt=0, lt=1)
    """The factor on the learning rate."""
    threshold: float = Field(default=1e-4, ge=0)
    """How much better counts as an improvement."""
    threshold_mode: Literal["rel", "abs"] = "rel"
    """Whether the threshold is a share of the best value or a difference."""
    min_lr: Rates = 0.0
    """The minimum learning rate, or one for each group."""


class GreedyArguments(MetricArguments):
    """Arguments of `hub.builtin.greedy.GreedyLR`, the same as of `transformers.GreedyLR`."""

    factor: float = Field(default=0.95, gt=0, lt=1)
    """The learning rate is multiplied by this to decrease it, and divided to increase it."""
    threshold: float = Field(default=1e-6, ge=0)
    """How much better counts as an improvement."""
    threshold_mode: Literal["rel", "abs"] = "abs"
    """Whether the threshold is a share of the best value or a difference."""
    warmup: int = Field(default=0, ge=0)
    """Evaluations to ignore after an increase."""
    min_lr: Rates = 1e-3
    """The minimum learning rate, or one for each group; at most the optimizer's."""
    max_lr: Rates = 1.0
    """The maximum learning rate, or one for each group; at least the optimizer's."""
    smooth: bool = False
    """Use the average of the last metrics."""
    window_size: PositiveInt = 50
    """The number of metrics in that average."""
    reset_start: int = Field(default=500, ge=0)
    """Decreases in a row with all groups at min_lr, before the initial learning rates return."""


class AdafactorArguments(Arguments):
    """Arguments of the schedule that reports the learning rate computed by Adafactor."""

    initial_lr: Rate = 0.0
    """The value to report before the first step."""


def _curve(
    curve: curves.Curve, optimizer: Optimizer, warmup: int, total: int | None, arguments: Any
) -> CurveSchedule:
    from hub.builtin.schedule_classes import CurveSchedule

    run = curves.Run(warmup, total or 0, _learning_rate(optimizer))
    factor = partial(curve, run=run, arguments=arguments)
    return CurveSchedule(optimizer, factor, arguments.last_epoch)


def _learning_rate(optimizer: Optimizer) -> float:
    """Return the optimizer's learning rate, to turn an absolute learning rate into a factor."""
    return float(optimizer.defaults.get("lr") or 1.0)


def _with_minimum(
    curve: curves.Curve,
    name: str,
    optimizer: Optimizer,
    warmup: int,
    total: int | None,
    arguments: MinLRArguments,
) -> CurveSchedule:
    """Build a schedule with a minimum learning rate, after checking it against the peak."""
    lr = _learning_rate(optimizer)
    if arguments.min_lr is not None and arguments.min_lr > lr:
        raise OptimArgsError(
            f"min_lr={arguments.min_lr:g} is above the optimizer's learning rate, {lr:g}",
            where=f"schedule '{name}'",
            fix=f"use a min_lr of at most {lr:g}, or min_lr_rate",
        )
    return _curve(curve, optimizer, warmup, total, arguments)


def _polynomial(
    optimizer: Optimizer, warmup: int, total: int | None, arguments: PolynomialArguments
) -> CurveSchedule:
    lr = _learning_rate(optimizer)
    if arguments.lr_end >= lr:
        raise OptimArgsError(
            f"lr_end={arguments.lr_end:g} is not below the optimizer's learning rate, {lr:g}",
            where="schedule 'polynomial'",
            fix="use a smaller lr_end",
        )
    return _curve(curves.polynomial, optimizer, warmup, total, arguments)


def _stable(
    optimizer: Optimizer, warmup: int, total: int | None, arguments: StableArguments
) -> CurveSchedule:
    stable, decay = arguments.num_stable_steps, arguments.num_decay_steps
    if stable is None and (total is None or warmup + decay > total):
        raise OptimArgsError(
            "the length of the stable phase is unknown"
            if total is None
            else f"{warmup} warm-up and {decay} decay steps exceed {total} training steps",
            where="schedule 'warmup_stable_decay'",
            fix="pass num_training_steps or num_stable_steps"
            if total is None
            else "use fewer warm-up or decay steps",
        )
    if stable is not None and total is not None and warmup + stable + decay != total:
        parts = warmup + stable + decay
        rest = (
            f"the last {total - parts} stay at the minimum"
            if parts < total
            else f"the last {parts - total} are never reached"
        )
        warnings.warn(
            f"warmup_stable_decay: {warmup} warm-up, {stable} stable and {decay} decay steps are "
            f"{parts} steps, but the training has {total}: {rest}; omit num_stable_steps",
            HubWarning,
            stacklevel=4,
        )
    return _curve(curves.warmup_stable_decay, optimizer, warmup, total, arguments)


def _plateau(
    optimizer: Optimizer, _warmup: int, _total: int | None, arguments: PlateauArguments
) -> PlateauSchedule:
    from hub.builtin.schedule_classes import PlateauSchedule

    return PlateauSchedule(optimizer, **arguments.model_dump())


def _greedy(
    optimizer: Optimizer, _warmup: int, _total: int | None, arguments: GreedyArguments
) -> GreedyLR:
    from hub.builtin.greedy import GreedyLR

    return GreedyLR(optimizer, **arguments.model_dump())


def _adafactor(
    optimizer: Optimizer, _warmup: int, _total: int | None, arguments: AdafactorArguments
) -> AdafactorSchedule:
    from hub.builtin.schedule_classes import AdafactorSchedule

    return AdafactorSchedule(optimizer, arguments.initial_lr)


def _spec(
    name: str,
    summary: str,
    arguments: type[Arguments],
    build: Any = None,
    **properties: Any,
) -> SchedulerSpec:
    return SchedulerSpec(
        name=name,
        summary=summary,
        arguments=arguments,
        build=build or partial(_curve, getattr(curves, name)),
        **properties,
    )


@hookimpl
def hub_register_schedulers() -> list[SchedulerSpec]:
    """Offer the schedules."""
    whole = {"needs_training_steps": True}
    return [
        _spec("linear", "Linear warm-up, then linear decay to 0", CurveArguments, **whole),
        _spec("cosine", "Linear warm-up, then decay along a cosine", CosineArguments, **whole),
        _spec(
            "cosine_with_restarts",
            "Linear warm-up, then several half cosines",
            RestartsArguments,
            **whole,
        ),
        _spec(
            "polynomial",
            "Linear warm-up, then decay as a power to lr_end",
            PolynomialArguments,
            _polynomial,
            **whole,
        ),
        _spec(
            "constant",
            "Constant",
            CurveArguments,
            uses_warmup_steps=False,
            decays=False,
        ),
        _spec(
            "constant_with_warmup",
            "Linear warm-up, then constant",
            CurveArguments,
            decays=False,
        ),
        _spec(
            "inverse_sqrt",
            "Linear warm-up, then inverse square root decay",
            InverseSqrtArguments,
        ),
        _spec(
            "reduce_lr_on_plateau",
            "Reduced when a metric stops improving",
            PlateauArguments,
            _plateau,
            uses_warmup_steps=False,
            needs_metric=True,
            example_arguments={"patience": 1},
        ),
        _spec(
            "cosine_with_min_lr",
            "Linear warm-up, then cosine decay to a minimum",
            MinLRArguments,
            partial(_with_minimum, curves.cosine_with_min_lr, "cosine_with_min_lr"),
            example_arguments={"min_lr_rate": 0.1},
            **whole,
        ),
        _spec(
            "cosine_warmup_with_min_lr",
            "Warm-up from a first rate, then cosine to a minimum",
            WarmupMinLRArguments,
            partial(_with_minimum, curves.cosine_warmup_with_min_lr, "cosine_warmup_with_min_lr"),
            example_arguments={"min_lr_rate": 0.1},
            **whole,
        ),
        _spec(
            "warmup_stable_decay",
            "Warm-up, then constant, then decay",
            StableArguments,
            _stable,
            example_arguments={"num_decay_steps": 4},
        ),
        _spec(
            "greedy",
            "Increased while a metric improves, else decreased",
            GreedyArguments,
            _greedy,
            uses_warmup_steps=False,
            needs_metric=True,
            example_arguments={"patience": 1},
        ),
        _spec(
            "adafactor",
            "Reports the learning rate that Adafactor computes",
            AdafactorArguments,
            _adafactor,
            uses_warmup_steps=False,
            decays=False,
            example_optimizer=("adafactor", {"relative_step": True, "warmup_init": True}),
        ),
    ]
