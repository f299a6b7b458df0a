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
        raise ValueError("a learning rate is not negative")
    return bound


Rates = Annotated[float | tuple[float, ...], AfterValidator(_not_negative)]


class CurveArguments(Arguments):
    """What schedules take that depend on the step alone, besides the numbers of steps."""

    last_epoch: int = Field(default=-1, ge=-1)
    """The last step taken, from 0, to go on from it with the groups' `initial_lr`; -1: none."""


class CosineArguments(CurveArguments):
    """Arguments of the cosine schedule."""

    num_cycles: float = 0.5
    """Waves of the cosine: by default the half that goes from the peak to 0."""


class RestartsArguments(CurveArguments):
    """Arguments of the cosine schedule with restarts."""

    num_cycles: PositiveInt = 1
    """How often the learning rate falls from its peak to 0."""


class PolynomialArguments(CurveArguments):
    """Arguments of the polynomial schedule."""

    lr_end: float = Field(default=1e-7, ge=0)
    """The learning rate at the end; below the optimizer's."""
    power: float = 1.0
    """Power of the remaining share of the training."""


class InverseSqrtArguments(CurveArguments):
    """Arguments of the inverse square root schedule."""

    timescale: PositiveInt | None = None
    """Steps after which the decay is a square root of 2; None: those of the warm-up, or 10,000."""


class MinLRArguments(CosineArguments):
    """Arguments of the cosine schedule with a minimum learning rate: one of the two."""

    min_lr: float | None = Field(default=None, ge=0)
    """The minimum learning rate."""
    min_lr_rate: float | None = Field(default=None, ge=0, le=1)
    """The minimum learning rate, as a share of the peak."""

    @model_validator(mode="after")
    def _has_one_least(self) -> Self:
        if (self.min_lr is None) == (self.min_lr_rate is None):
            raise ValueError("give either min_lr or min_lr_rate")
        return self


class WarmupMinLRArguments(MinLRArguments):
    """Arguments of the cosine schedule with a minimum and a first learning rate."""

    warmup_lr_rate: float | None = Field(default=None, ge=0)
    """The first learning rate, as a share of the peak; None: one over the warm-up steps."""


class StableArguments(CurveArguments):
    """Arguments of the schedule of warm-up, stable phase and decay."""

    num_decay_steps: int = Field(ge=0)
    """Steps of the decay, the last of the training."""
    num_stable_steps: int | None = Field(default=None, ge=0)
    """Steps at the peak; None: what warm-up and decay leave of the training."""
    warmup_type: Literal["linear", "cosine", "1-sqrt"] = "linear"
    """Form of the warm-up."""
    decay_type: Literal["linear", "cosine", "1-sqrt"] = "cosine"
    """Form of the decay."""
    min_lr_ratio: float = Field(default=0.0, ge=0, le=1)
    """The learning rate at the start and at the end, as a share of the peak."""
    num_cycles: float = 0.5
    """Waves of a cosine decay."""


class MetricArguments(Arguments):
    """What schedules take that follow a metric. Evaluations are calls of `step(metric)`."""

    mode: Literal["min", "max"] = "min"
    """Whether the metric is better when it is lower or higher."""
    patience: int = Field(default=10, ge=0)
    """Evaluations in a row after which the learning rate changes: one more than this."""
    cooldown: int = Field(default=0, ge=0)
    """Evaluations after a reduction that do not count."""
    eps: float = Field(default=1e-8, ge=0)
    """A smaller change is left out."""


class PlateauArguments(MetricArguments):
    """Arguments of `torch.optim.lr_scheduler.ReduceLROnPlateau`."""

    factor: float = Field(default=0.1, gt=0, lt=1)
    """What the learning rate is multiplied by."""
    threshold: float = Field(default=1e-4, ge=0)
    """How much better counts as improvement."""
    threshold_mode: Literal["rel", "abs"] = "rel"
    """Whether the threshold is a share of the best value or a difference."""
    min_lr: Rates = 0.0
    """The minimum learning rate, or one for each group."""


class GreedyArguments(MetricArguments):
    """Arguments of `hub.builtin.greedy.GreedyLR`, which are those of `transformers.GreedyLR`."""

    factor: float = Field(default=0.95, gt=0, lt=1)
    """What the learning rate is multiplied by to lower it, and divided by to raise it."""
    threshold: float = Field(default=1e-6, ge=0)
    """How much better counts as improvement."""
    threshold_mode: Literal["rel", "abs"] = "abs"
    """Whether the threshold is a share of the best value or a difference."""
    warmup: int = Field(default=0, ge=0)
    """Evaluations after a raise that do not count."""
    min_lr: Rates = 1e-3
    """The minimum learning rate, or one for each group; not above the optimizer's."""
    max_lr: Rates = 1.0
    """The highest learning rate, or one for each group; not below the optimizer's."""
    smooth: bool = False
    """Judge the average of the last metrics."""
    window_size: PositiveInt = 50
    """How many metrics that average is of."""
    reset_start: int = Field(default=500, ge=0)
    """Reductions in a row that find all groups at min_lr, before everything starts again."""


class AdafactorArguments(Arguments):
    """Arguments of the schedule that reports Adafactor's own learning rate."""

    initial_lr: Rate = 0.0
    """What to report before the first step."""


def _curve(
    curve: curves.Curve, optimizer: Optimizer, warmup: int, total: int | None, arguments: Any
) -> CurveSchedule:
    from hub.builtin.schedule_classes import CurveSchedule

    run = curves.Run(warmup, total or 0, _base(optimizer))
    factor = partial(curve, run=run, arguments=arguments)
    return CurveSchedule(optimizer, factor, arguments.last_epoch)


def _base(optimizer: Optimizer) -> float:
    """Return the optimizer's own learning rate, which absolute ends are relative to."""
    return float(optimizer.defaults.get("lr") or 1.0)


def _least(
    curve: curves.Curve,
    name: str,
    optimizer: Optimizer,
    warmup: int,
    total: int | None,
    arguments: MinLRArguments,
) -> CurveSchedule:
    """Build a schedule whose minimum learning rate is not above the peak."""
    lr = _base(optimizer)
    if arguments.min_lr is not None and arguments.min_lr > lr:
        raise OptimArgsError(
            f"min_lr={arguments.min_lr:g} is above the optimizer's learning rate, {lr:g}",
            where=f"schedule '{name}'",
            fix=f"give a min_lr up to {lr:g}, or a min_lr_rate",
        )
    return _curve(curve, optimizer, warmup, total, arguments)


def _polynomial(
    optimizer: Optimizer, warmup: int, total: int | None, arguments: PolynomialArguments
) -> CurveSchedule:
    lr = _base(optimizer)
    if arguments.lr_end >= lr:
        raise OptimArgsError(
            f"lr_end={arguments.lr_end:g} is not below the optimizer's learning rate, {lr:g}",
            where="schedule 'polynomial'",
            fix="give a smaller lr_end",
        )
    return _curve(curves.polynomial, optimizer, warmup, total, arguments)


def _stable(
    optimizer: Optimizer, warmup: int, total: int | None, arguments: StableArguments
) -> CurveSchedule:
    stable, decay = arguments.num_stable_steps, arguments.num_decay_steps
    if stable is None and (total is None or warmup + decay > total):
        raise OptimArgsError(
            "the length of the stable phase is not known"
            if total is None
            else f"{warmup} warm-up and {decay} decay steps do not fit into {total} training steps",
            where="schedule 'warmup_stable_decay'",
            fix="give num_training_steps or num_stable_steps" if total is None else "give fewer",
        )
    if stable is not None and total is not None and warmup + stable + decay != total:
        parts = warmup + stable + decay
        rest = (
            f"the last {total - parts} stay at the least"
            if parts < total
            else f"the last {parts - total} of the schedule are never reached"
        )
        warnings.warn(
            f"warmup_stable_decay: {warmup} warm-up, {stable} stable and {decay} decay steps make "
            f"{parts} of {total} training steps: {rest}; leave out num_stable_steps",
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
    """Return the schedules."""
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
            "Lowered when a metric stops improving",
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
            partial(_least, curves.cosine_with_min_lr, "cosine_with_min_lr"),
            example_arguments={"min_lr_rate": 0.1},
            **whole,
        ),
        _spec(
            "cosine_warmup_with_min_lr",
            "Warm-up from a first rate, then cosine to a minimum",
            WarmupMinLRArguments,
            partial(_least, curves.cosine_warmup_with_min_lr, "cosine_warmup_with_min_lr"),
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
            "Raised while a metric improves, else lowered",
            GreedyArguments,
            _greedy,
            uses_warmup_steps=False,
            needs_metric=True,
            example_arguments={"patience": 1},
        ),
        _spec(
            "adafactor",
            "Writes the rate that Adafactor computes to its groups",
            AdafactorArguments,
            _adafactor,
            uses_warmup_steps=False,
            decays=False,
            example_optimizer=("adafactor", {"relative_step": True, "warmup_init": True}),
        ),
    ]
