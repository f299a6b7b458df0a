"""Learning-rate curves: functions from a step to a factor on each group's learning rate.

The formulas equal those of `transformers/optimization.py` (5.23) to the last bit, so a run that
moves to hub keeps its curve.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Run(NamedTuple):
    """The length of a run in optimizer steps, and its learning rate."""

    warmup: int
    total: int
    lr: float
    """The optimizer's learning rate, to turn an absolute learning rate into a factor."""


class Curve(Protocol):
    """A learning-rate curve."""

    def __call__(self, step: int, run: Run, arguments: Any) -> float:
        """Return the factor at `step`, counted from 0."""


def _warmup_factor(step: int, run: Run) -> float | None:
    """Return the factor of a linear warm-up from 0 to 1, or None after the warm-up."""
    return step / max(1, run.warmup) if step < run.warmup else None


def _progress(step: int, run: Run) -> float:
    """Return the completed share of the training after the warm-up."""
    return (step - run.warmup) / max(1, run.total - run.warmup)


def _cosine(waves: float, progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * waves * 2.0 * progress))


def _rescale(floor: float, factor: float) -> float:
    """Rescale a factor between 0 and 1 to lie between `floor` and 1."""
    return max(0.0, factor * (1 - floor) + floor)


def _floor(run: Run, arguments: Any) -> float:
    """Return the minimum factor, from `min_lr_rate` or `min_lr`."""
    floor: float = arguments.min_lr_rate if arguments.min_lr is None else arguments.min_lr / run.lr
    return floor


def constant(step: int, run: Run, arguments: Any) -> float:  # noqa: ARG001
    """Return 1."""
    return 1.0


def constant_with_warmup(step: int, run: Run, arguments: Any) -> float:  # noqa: ARG001
    """Rise linearly from 0 to 1 during the warm-up, then stay at 1."""
    warming = _warmup_factor(step, run)
    return 1.0 if warming is None else warming


def linear(step: int, run: Run, arguments: Any) -> float:  # noqa: ARG001
    """Rise linearly, then fall linearly to 0 at the last step."""
    warming = _warmup_factor(step, run)
    left = (run.total - step) / max(1, run.total - run.warmup)
    return max(0.0, left) if warming is None else warming


def cosine(step: int, run: Run, arguments: Any) -> float:
    """Rise linearly, then follow a cosine, by default half a wave from the peak to 0."""
    warming = _warmup_factor(step, run)
    return (
        max(0.0, _cosine(arguments.num_cycles, _progress(step, run)))
        if warming is None
        else warming
    )


def cosine_with_restarts(step: int, run: Run, arguments: Any) -> float:
    """Rise linearly, then fall along half a cosine to 0, several times."""
    warming = _warmup_factor(step, run)
    if warming is not None:
        return warming
    progress = _progress(step, run)
    if progress >= 1.0:
        return 0.0
    turn = (float(arguments.num_cycles) * progress) % 1.0
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * turn)))


def polynomial(step: int, run: Run, arguments: Any) -> float:
    """Rise linearly, then fall to `lr_end` as a power of the remaining share, and stay there."""
    warming = _warmup_factor(step, run)
    if warming is not None:
        return warming
    end: float = arguments.lr_end
    if step > run.total or run.total == run.warmup:
        return end / run.lr
    left = 1 - (step - run.warmup) / (run.total - run.warmup)
    rate: float = (run.lr - end) * left**arguments.power + end
    return rate / run.lr


def inverse_sqrt(step: int, run: Run, arguments: Any) -> float:
    """Rise linearly, then fall with the inverse square root of the step."""
    warming = _warmup_factor(step, run)
    if warming is not None:
        return warming
    timescale: int = run.warmup or 10_000 if arguments.timescale is None else arguments.timescale
    return 1.0 / math.sqrt((step + (timescale - run.warmup)) / timescale)


def cosine_with_min_lr(step: int, run: Run, arguments: Any) -> float:
    """Rise linearly, then follow a cosine to the minimum learning rate."""
    warming = _warmup_factor(step, run)
    if warming is not None:
        return warming
    return _rescale(_floor(run, arguments), _cosine(arguments.num_cycles, _progress(step, run)))


def cosine_warmup_with_min_lr(step: int, run: Run, arguments: Any) -> float:
    """Rise linearly from the first step's factor, then follow a cosine to the minimum."""
    start = arguments.warmup_lr_rate
    if step < run.warmup:
        if start is None:
            return (step + 1.0) / max(1.0, run.warmup)
        rate: float = start + (1.0 - start) * step / max(1, run.warmup - 1.0)
        return rate
    progress = (step - run.warmup + 1.0) / max(1.0, run.total - run.warmup)
    return _rescale(_floor(run, arguments), _cosine(arguments.num_cycles, progress))


_WARMUPS: dict[str, Callable[[float], float]] = {
    "linear": lambda progress: progress,
    "cosine": lambda progress: 0.5 * (1.0 - math.cos(math.pi * progress)),
    "1-sqrt": lambda progress: 1.0 - math.sqrt(1.0 - progress),
}
_DECAYS: dict[str, Callable[[float, float], float]] = {
    "linear": lambda progress, _: 1.0 - progress,
    "cosine": lambda progress, waves: _cosine(waves, progress),
    "1-sqrt": lambda progress, _: 1.0 - math.sqrt(progress),
}


def warmup_stable_decay(step: int, run: Run, arguments: Any) -> float:
    """Rise, stay at the peak, and fall; then stay at the minimum."""
    floor: float = arguments.min_lr_ratio
    if step < run.warmup:
        return _rescale(floor, _WARMUPS[arguments.warmup_type](step / max(1, run.warmup)))
    stable = arguments.num_stable_steps
    if stable is None:
        stable = run.total - run.warmup - arguments.num_decay_steps
    falling = step - run.warmup - stable
    if falling < 0:
        return 1.0
    if falling < arguments.num_decay_steps:
        progress = falling / max(1, arguments.num_decay_steps)
        return _rescale(floor, _DECAYS[arguments.decay_type](progress, arguments.num_cycles))
    return floor
