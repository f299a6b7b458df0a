"""The promises of hub's design as checks, which raise AssertionError and say what is broken."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hub.testing import (
    argument_checks,
    build_checks,
    copy_checks,
    evaluation_checks,
    layerwise_checks,
    low_memory_checks,
    name_checks,
    process_checks,
    rate_checks,
    schedule_checks,
    state_checks,
    step_checks,
    thread_checks,
    update_checks,
    witness_checks,
)
from hub.testing.schedule_checks import Timetable
from hub.testing.thread_count import thread_count

if TYPE_CHECKING:
    from collections.abc import Callable

    from hub.testing.subject import Subject


class Check(NamedTuple):
    """A check of an optimizer, and the promise that it stands for.

    Attributes:
        name: As in the id of a test, and in a spec's `known_failures`.
        promise: A key of `PROMISES`, or `LAYERWISE`. Where a check holds several, the main one.
        function: Raises AssertionError where the promise is broken.
    """

    name: str
    promise: str
    function: Callable[[Subject], None]


PROMISES = {
    "P1": "class",
    "P2": "lr",
    "P3": "decay, betas",
    "P4": "groups",
    "P5": "resume",
    "P6": "accumulation",
    "P7": "clipping",
    "P8": "evaluation",
    "P9": "several processes",
    "P10": "trains",
    "P11": "no trace",
    "P12": "bad input",
    "P13": "algorithm",
    "P14": "low memory",
}
"""Each promise of the design that has checks, in a word or two."""

LAYERWISE = "layerwise"
"""What the checks of optimizers that step inside the backward pass are for."""

ROWS = (
    Check("is_optimizer", "P1", build_checks.is_optimizer),
    Check("follows_lr", "P2", rate_checks.follows_lr),
    Check("own_lr", "P2", rate_checks.own_lr),
    Check("hyperparameters", "P3", argument_checks.hyperparameters),
    Check("decay", "P3", argument_checks.decay),
    Check("names", "P3", name_checks.names),
    Check("covers", "P4", build_checks.covers),
    Check("late_group", "P4", build_checks.late_group),
    Check("resume", "P5", state_checks.resume),
    Check("plain_state", "P5", state_checks.plain_state),
    Check("distributed_state", "P5", state_checks.distributed_state),
    Check("other_checkpoint", "P12", state_checks.other_checkpoint),
    Check("other_shapes", "P12", copy_checks.other_shapes),
    Check("shares_nothing", "P5", copy_checks.shares_nothing),
    Check("copies", "P7", copy_checks.copies),
    Check("accumulates", "P6", update_checks.accumulates),
    Check("leaves_gradients", "P7", update_checks.leaves_gradients),
    Check("clips", "P7", update_checks.clips),
    Check("norm_before_step", "P7", step_checks.norm_before_step),
    Check("closures", "P6", step_checks.closures),
    Check("modes", "P8", state_checks.modes),
    Check("evaluates", "P8", evaluation_checks.evaluates),
    Check("data_parallel", "P9", process_checks.data_parallel),
    Check("even_shards", "P9", process_checks.even_shards),
    Check("uneven_shards", "P9", process_checks.uneven_shards),
    Check("empty_shards", "P9", process_checks.empty_shards),
    Check("dead_layers", "P9", process_checks.dead_layers),
    Check("flat_shards", "P9", process_checks.flat_shards),
    Check("same_keys", "P9", process_checks.same_keys),
    Check("other_ranks", "P9", process_checks.other_ranks),
    Check("trains", "P10", update_checks.trains),
    Check("refused", "P10", build_checks.refused),
    Check("no_trace", "P11", build_checks.no_trace),
    Check("detaches", "P11", step_checks.detaches),
    Check("threads", "P11", thread_checks.threads),
    Check("bad_input", "P12", build_checks.bad_input),
    Check("witnessed", "P13", witness_checks.witnessed),
    Check("offloads", "P14", low_memory_checks.offloads),
    Check("splits", "P14", low_memory_checks.splits),
    Check("rounds", "P14", low_memory_checks.rounds),
    Check("equals_eager", LAYERWISE, layerwise_checks.equals_eager),
    Check("frees", LAYERWISE, layerwise_checks.frees),
    Check("steps_once", LAYERWISE, layerwise_checks.steps_once),
)

CHECKS = {check.name: check for check in ROWS}
"""Each check by its name."""

EAGER = frozenset({"leaves_gradients"})
"""The checks of optimizers that do not step inside the backward pass only."""

IN_BACKWARD = frozenset(check.name for check in ROWS if check.promise == LAYERWISE)
"""The checks of optimizers that step inside the backward pass only."""

IN_PROCESSES = frozenset(check.name for check in ROWS if check.promise == "P9")
"""The checks that start several processes, which run where their number is given."""


def run(check: str, subject: Subject | Timetable) -> None:
    """Run one check, on as many threads as `HUB_TEST_THREADS` says.

    cuDNN's convolutions, which the kit's model has, add in the same order every time.

    Raises:
        AssertionError: The optimizer breaks the promise; the message says how.
    """
    import torch

    before = torch.get_num_threads(), torch.backends.cudnn.deterministic
    torch.set_num_threads(thread_count())
    torch.backends.cudnn.deterministic = True
    try:
        if isinstance(subject, Timetable):
            schedule_checks.CHECKS[check](subject)
        else:
            CHECKS[check].function(subject)
    finally:
        torch.set_num_threads(before[0])
        torch.backends.cudnn.deterministic = before[1]
