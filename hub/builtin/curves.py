"""Learning-rate curves: from the step of a run to a factor on each group's learning rate.

The formulas are those of `transformers/optimization.py` (5.23), to the last bit: a run that moves
here keeps its curve.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Run(NamedTuple):
    """What a curve is stretched over, in optimizer steps."""

    warmup: int
    total: int
    lr: float
    """The optimizer's own learning rate, which absolute ends are relative to."""


class Curve(Protocol):
    """A schedule."""

    def __call__(self, step: int, run: Run, arguments: Any) -> float:
        """Return the factor at `step`, counted from 0."""


def _rising(step: int, run: Run) -> float | None:
    """Return the factor of a linear warm-up from 0 to 1, or None when it is over."""
    return step / max(1, run.warmup) if step < run.warmup else None


def _progress(step: int, run: Run) -> float:
    """Return the share of the training after the warm-up that is done."""
    return (step - run.warmup) / max(1, run.total - run.warmup)


def _cosine(waves: float, progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * waves * 2.0 * progress))


def _above(least: float, factor: float) -> float:
    """Return a factor between 0 and 1, squeezed to lie between `least` and 1."""
    return max(0.0, factor * (1 - least) + least)


def _least(run: Run, arguments: Any) -> float:
    """Return the lowest factor, given as one or as a learning rate."""
    least: float = arguments.min_lr_rate if arguments.min_lr is None else arguments.min_lr / run.lr
    return least


def constant(step: int, run: Run, arguments: Any) -> float:  # noqa: ARG001
    """Return 1."""
    return 1.0


def constant_with_warmup(step: int, run: Run, arguments: Any) -> float:  # noqa: ARG001
    """Rise linearly from 0 to 1 during the warm-up, then stay."""
    rising = _rising(step, run)
    return 1.0 if rising is None else rising


def linear(step: int, run: Run, arguments: Any) -> float:  # noqa: ARG001
    """Rise linearly, then fall linearly to 0 at the last step."""
    rising = _rising(step, run)
    left = (run.total - step) / max(1, run.total - run.warmup)
    return max(0.0, left) if rising is None else rising


def cosine(step: int, run: Run, arguments: Any) -> float:
    """Rise linearly, then follow a cosine, by default its half from the peak to 0."""
    rising = _rising(step, run)
    return (
        max(0.0, _cosine(arguments.num_cycles, _progress(step, run))) if rising is None else rising
    )


def cosine_with_restarts(step: int, run: Run, arguments: Any) -> float:
    """Rise linearly, then fall along half a cosine to 0, several times."""
    rising = _rising(step, run)
    if rising is not None:
        return rising
    progress = _progress(step, run)
    if progress >= 1.0:
        return 0.0
    turn = (float(arguments.num_cycles) * progress) % 1.0
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * turn)))


def polynomial(step: int, run: Run, arguments: Any) -> float:
    """Rise linearly, then fall as a power of the remaining share to `lr_end`, and stay there."""
    rising = _rising(step, run)
    if rising is not None:
        return rising
    end: float = arguments.lr_end
    if step > run.total or run.total == run.warmup:
        return end / run.lr
    left = 1 - (step - run.warmup) / (run.total - run.warmup)
    rate: float = (run.lr - end) * left**arguments.power + end
    return rate / run.lr


def inverse_sqrt(step: int, run: Run, arguments: Any) -> float:
    """Rise linearly, then fall with the square root of the step."""
    rising = _rising(step, run)
    if rising is not None:
        return rising
    timescale: int = run.warmup or 10_000 if arguments.timescale is None else arguments.timescale
    return 1.0 / math.sqrt((step + (timescale - run.warmup)) / timescale)


def cosine_with_min_lr(step: int, run: Run, arguments: Any) -> float:
    """Rise linearly, then follow a cosine to the least learning rate."""
    rising = _rising(step, run)
    if rising is not None:
        return rising
    return _above(_least(run, arguments), _cosine(arguments.num_cycles, _progress(step, run)))


def cosine_warmup_with_min_lr(step: int, run: Run, arguments: Any) -> float:
    """Rise linearly from the first step's own factor, then follow a cosine to the least."""
    start = arguments.warmup_lr_rate
    if step < run.warmup:
        if start is None:
            return (step + 1.0) / max(1.0, run.warmup)
        rate: float = start + (1.0 - start) * step / max(1, run.warmup - 1.0)
        return rate
    progress = (step - run.warmup + 1.0) / max(1.0, run.total - run.warmup)
    return _above(_least(run, arguments), _cosine(arguments.num_cycles, progress))


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
    """Rise, stay, and fall; then stay at the least."""
    least: float = arguments.min_lr_ratio
    if step < run.warmup:
        return _above(least, _WARMUPS[arguments.warmup_type](step / max(1, run.warmup)))
    stable = arguments.num_stable_steps
    if stable is None:
        stable = run.total - run.warmup - arguments.num_decay_steps
    falling = step - run.warmup - stable
    if falling < 0:
        return 1.0
    if falling < arguments.num_decay_steps:
        progress = falling / max(1, arguments.num_decay_steps)
        return _above(least, _DECAYS[arguments.decay_type](progress, arguments.num_cycles))
    return least
