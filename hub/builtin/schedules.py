"""The built-in learning-rate schedules: their names and typed arguments."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from hub.arguments import Arguments
from hub.builtin import curves
from hub.errors import OptimArgsError
from hub.hookspecs import hookimpl
from hub.spec import SchedulerSpec

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau


class NoArguments(Arguments):
    """For schedules that take nothing but the numbers of steps."""


class CosineArguments(Arguments):
    """Arguments of the cosine schedule."""

    num_cycles: float = 0.5
    """Waves of the cosine: by default the half that goes from the peak to 0."""


class RestartsArguments(Arguments):
    """Arguments of the cosine schedule with restarts."""

    num_cycles: PositiveInt = 1
    """How often the learning rate falls from its peak to 0."""


class PolynomialArguments(Arguments):
    """Arguments of the polynomial schedule."""

    lr_end: float = Field(default=1e-7, ge=0)
    """The learning rate at the end; below the optimizer's."""
    power: float = 1.0
    """Power of the remaining share of the training."""


class InverseSqrtArguments(Arguments):
    """Arguments of the inverse square root schedule."""

    timescale: PositiveInt | None = None
    """Steps after which the decay is a square root of 2; None: those of the warm-up, or 10,000."""


class MinLRArguments(CosineArguments):
    """Arguments of the cosine schedule with a least learning rate: one of the two."""

    min_lr: float | None = Field(default=None, ge=0)
    """The least learning rate."""
    min_lr_rate: float | None = Field(default=None, ge=0)
    """The least learning rate, as a share of the peak."""

    @model_validator(mode="after")
    def _has_one_least(self) -> Self:
        if (self.min_lr is None) == (self.min_lr_rate is None):
            raise ValueError("give either min_lr or min_lr_rate")
        return self


class WarmupMinLRArguments(MinLRArguments):
    """Arguments of the cosine schedule with a least and a first learning rate."""

    warmup_lr_rate: float | None = Field(default=None, ge=0)
    """The first learning rate, as a share of the peak; None: one over the warm-up steps."""


class StableArguments(Arguments):
    """Arguments of the schedule of warm-up, stable phase and decay."""

    num_decay_steps: int = Field(ge=0)
    """Steps of the decay, the last of the training."""
    num_stable_steps: int | None = Field(default=None, ge=0)
    """Steps at the peak; None: what warm-up and decay leave of the training."""
    warmup_type: Literal["linear", "cosine", "1-sqrt"] = "linear"
    """Form of the warm-up."""
    decay_type: Literal["linear", "cosine", "1-sqrt"] = "cosine"
    """Form of the decay."""
    min_lr_ratio: float = Field(default=0.0, ge=0)
    """The learning rate at the start and at the end, as a share of the peak."""
    num_cycles: float = 0.5
    """Waves of a cosine decay."""


class PlateauArguments(Arguments):
    """Arguments of `torch.optim.lr_scheduler.ReduceLROnPlateau`."""

    mode: Literal["min", "max"] = "min"
    """Whether the metric is better when it is lower or higher."""
    factor: float = Field(default=0.1, gt=0, lt=1)
    """What the learning rate is multiplied by."""
    patience: int = Field(default=10, ge=0)
    """Evaluations without improvement before that."""
    threshold: float = Field(default=1e-4, ge=0)
    """How much better counts as improvement."""
    threshold_mode: Literal["rel", "abs"] = "rel"
    """Whether the threshold is a share of the best value or a difference."""
    cooldown: int = Field(default=0, ge=0)
    """Evaluations after a reduction that do not count."""
    min_lr: float = Field(default=0.0, ge=0)
    """The least learning rate."""
    eps: float = Field(default=1e-8, ge=0)
    """A smaller reduction is left out."""


def _curve(
    curve: curves.Curve, optimizer: Optimizer, warmup: int, total: int | None, arguments: Any
) -> LambdaLR:
    from torch.optim.lr_scheduler import LambdaLR

    run = curves.Run(warmup, total or 0, float(optimizer.defaults.get("lr") or 1.0))
    return LambdaLR(optimizer, partial(curve, run=run, arguments=arguments))


def _polynomial(
    optimizer: Optimizer, warmup: int, total: int | None, arguments: PolynomialArguments
) -> LambdaLR:
    lr = float(optimizer.defaults["lr"])
    if arguments.lr_end >= lr:
        raise OptimArgsError(
            f"lr_end={arguments.lr_end:g} is not below the optimizer's learning rate, {lr:g}",
            where="schedule 'polynomial'",
            fix="give a smaller lr_end",
        )
    return _curve(curves.polynomial, optimizer, warmup, total, arguments)


def _stable(
    optimizer: Optimizer, warmup: int, total: int | None, arguments: StableArguments
) -> LambdaLR:
    stable, decay = arguments.num_stable_steps, arguments.num_decay_steps
    if stable is None and (total is None or warmup + decay > total):
        raise OptimArgsError(
            "the length of the stable phase is not known"
            if total is None
            else f"{warmup} warm-up and {decay} decay steps do not fit into {total} training steps",
            where="schedule 'warmup_stable_decay'",
            fix="give num_training_steps or num_stable_steps" if total is None else "give fewer",
        )
    return _curve(curves.warmup_stable_decay, optimizer, warmup, total, arguments)


def _plateau(
    optimizer: Optimizer,
    warmup: int,  # noqa: ARG001 - it has none, and `hub.build_scheduler` says so
    total: int | None,  # noqa: ARG001
    arguments: PlateauArguments,
) -> ReduceLROnPlateau:
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    return ReduceLROnPlateau(optimizer, **arguments.model_dump())


def _spec(
    name: str,
    summary: str,
    arguments: type[Arguments],
    build: Any = None,
    **properties: bool,
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
        _spec("linear", "Linear warm-up, then linear decay to 0", NoArguments, **whole),
        _spec("cosine", "Linear warm-up, then decay along a cosine", CosineArguments, **whole),
        _spec(
            "cosine_with_restarts",
            "Linear warm-up, then decay along half a cosine, several times",
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
            "Always the same",
            NoArguments,
            uses_warmup_steps=False,
            decays=False,
        ),
        _spec(
            "constant_with_warmup",
            "Linear warm-up, then always the same",
            NoArguments,
            decays=False,
        ),
        _spec(
            "inverse_sqrt",
            "Linear warm-up, then decay with the square root of the step",
            InverseSqrtArguments,
        ),
        _spec(
            "reduce_lr_on_plateau",
            "Lower when a metric stops improving; step(metric)",
            PlateauArguments,
            _plateau,
            uses_warmup_steps=False,
        ),
        _spec(
            "cosine_with_min_lr",
            "Linear warm-up, then decay along a cosine to a least learning rate",
            MinLRArguments,
            **whole,
        ),
        _spec(
            "cosine_warmup_with_min_lr",
            "Linear warm-up from a first rate, then decay along a cosine to a least one",
            WarmupMinLRArguments,
            **whole,
        ),
        _spec(
            "warmup_stable_decay",
            "Warm-up, then always the same, then decay",
            StableArguments,
            _stable,
        ),
    ]
