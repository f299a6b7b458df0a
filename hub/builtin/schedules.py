"""Learning-rate schedules, as functions of the step: each returns a factor on the group's lr.

The formulas are those of `transformers/optimization.py` (5.23), to the last bit: a run that moves
here keeps its curve.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from hub.arguments import Arguments
from hub.hookspecs import hookimpl
from hub.spec import SchedulerSpec

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR


class Factor(Protocol):
    """A schedule: from a step and the shape of the run to a factor on the learning rate."""

    def __call__(self, step: int, warmup: int, total: int, arguments: Any) -> float:
        """Return the factor at `step`, counted from 0."""


class NoArguments(Arguments):
    """For schedules that take nothing but the numbers of steps."""


class CosineArguments(Arguments):
    """Arguments of the cosine schedule."""

    num_cycles: float = 0.5
    """Waves of the cosine: by default the half that goes from the peak to 0."""


def constant(step: int, warmup: int, total: int, arguments: Any) -> float:  # noqa: ARG001
    """Return 1."""
    return 1.0


def constant_with_warmup(step: int, warmup: int, total: int, arguments: Any) -> float:  # noqa: ARG001
    """Rise linearly from 0 to 1 during the warm-up, then stay."""
    return step / max(1.0, warmup) if step < warmup else 1.0


def linear(step: int, warmup: int, total: int, arguments: Any) -> float:  # noqa: ARG001
    """Rise linearly to 1 during the warm-up, then fall linearly to 0 at the last step."""
    if step < warmup:
        return step / max(1, warmup)
    return max(0.0, (total - step) / max(1, total - warmup))


def cosine(step: int, warmup: int, total: int, arguments: CosineArguments) -> float:
    """Rise linearly to 1 during the warm-up, then follow a cosine."""
    if step < warmup:
        return step / max(1, warmup)
    progress = (step - warmup) / max(1, total - warmup)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * arguments.num_cycles * 2.0 * progress)))


def _lambda_lr(
    factor: Factor, optimizer: Optimizer, warmup: int, total: int | None, arguments: Any
) -> LambdaLR:
    from torch.optim.lr_scheduler import LambdaLR

    return LambdaLR(
        optimizer, partial(factor, warmup=warmup, total=total or 0, arguments=arguments)
    )


def _spec(
    name: str,
    summary: str,
    factor: Factor,
    arguments: type[Arguments] = NoArguments,
    **properties: bool,
) -> SchedulerSpec:
    return SchedulerSpec(
        name=name,
        summary=summary,
        arguments=arguments,
        build=partial(_lambda_lr, factor),
        **properties,
    )


@hookimpl
def hub_register_schedulers() -> list[SchedulerSpec]:
    """Return the schedules."""
    return [
        _spec(
            "linear",
            "Linear warm-up, then linear decay to 0",
            linear,
            needs_training_steps=True,
        ),
        _spec(
            "cosine",
            "Linear warm-up, then decay along a cosine",
            cosine,
            CosineArguments,
            needs_training_steps=True,
        ),
        _spec("constant", "Always the same", constant, uses_warmup_steps=False, decays=False),
        _spec(
            "constant_with_warmup",
            "Linear warm-up, then always the same",
            constant_with_warmup,
            decays=False,
        ),
    ]
