"""The promises of hub's design as checks: each fails with AssertionError and says what is broken.

P9 (several processes) and P13 (each parameter gets its algorithm) are not here yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.testing import (
    arguments,
    at_once,
    building,
    copies,
    evaluation,
    in_backward,
    rates,
    routing,
    schedules,
    state,
    stepping,
    updates,
)
from hub.testing.schedules import Timetable
from hub.testing.threads import threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from hub.testing.subject import Subject

CHECKS: dict[str, Callable[[Subject], None]] = {
    "is_optimizer": building.is_optimizer,  # P1
    "follows_lr": rates.follows_lr,  # P2
    "own_lr": rates.own_lr,  # P2
    "hyperparameters": arguments.hyperparameters,  # P3
    "decay": arguments.decay,  # P3
    "names": routing.names,  # P3
    "covers": building.covers,  # P4
    "late_group": building.late_group,  # P4
    "resume": state.resume,  # P5
    "plain_state": state.plain_state,  # P5
    "distributed_state": state.distributed_state,  # P5
    "other_checkpoint": state.other_checkpoint,  # P5, P12
    "other_shapes": copies.other_shapes,  # P12
    "shares_nothing": copies.shares_nothing,  # P5
    "copies": copies.copies,  # P5, P7, P8
    "accumulates": updates.accumulates,  # P6
    "leaves_gradients": updates.leaves_gradients,  # P7
    "clips": updates.clips,  # P7
    "norm_before_step": stepping.norm_before_step,  # P7
    "closures": stepping.closures,  # P6, P7
    "modes": state.modes,  # P8
    "evaluates": evaluation.evaluates,  # P8
    "trains": updates.trains,  # P10
    "refused": building.refused,  # P10
    "no_trace": building.no_trace,  # P11
    "detaches": stepping.detaches,  # P11
    "threads": at_once.threads,  # P11
    "bad_input": building.bad_input,  # P12
    "equals_eager": in_backward.equals_eager,  # P2, P5, P6
    "frees": in_backward.frees,
    "steps_once": in_backward.steps_once,  # P6
}
"""Name of the check, and the check."""

EAGER = frozenset({"leaves_gradients"})
"""The checks for optimizers that do not step inside the backward pass only."""

IN_BACKWARD = frozenset({"equals_eager", "frees", "steps_once"})
"""The checks for optimizers that step inside the backward pass only."""


def run(check: str, subject: Subject | Timetable) -> None:
    """Run one check, on as many threads as `hub.testing.threads` says.

    Raises:
        AssertionError: The optimizer breaks the promise; the message says how.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads())
    try:
        if isinstance(subject, Timetable):
            schedules.CHECKS[check](subject)
        else:
            CHECKS[check](subject)
    finally:
        torch.set_num_threads(before)
