"""Checks that several processes give the result of one: P9.

Every rank has to end with the weights, and to see the evaluation, of one process that averages the
same gradients in the same order; or hub refuses, before a weight has changed, and says what to do.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hub.running.sharded.kinds import sharding_of
from hub.testing.expect import expect
from hub.testing.process_model import ALL, DEAD, EMPTY, EVEN, UNEVEN, Shapes
from hub.testing.process_resumes import (
    Route,
    keys_together,
    resume_alone,
    resume_together,
    save_alone,
    save_together,
)
from hub.testing.process_runs import PARTS, STEPS, Average, Run, Setting, alone, together
from hub.testing.rank_process import Failure
from hub.testing.ranks import shared_ranks
from hub.testing.strategies import Strategy

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from hub.testing.subject import Subject

TRAINED = Shapes(is_uneven=True, has_empty=True)
"""Every parameter has state, as `torch.distributed.checkpoint` demands when it loads from disk."""
SUMS_OF_SHARDS = 1e-5
"""How far a native step may be off that is not elementwise: its sums round by order."""


def data_parallel(subject: Subject) -> None:
    """P9: under DDP, built before or after wrapping, and with layers that never have a gradient."""
    for strategy in (Strategy.DDP, Strategy.DDP_AFTER):
        refusal(subject, ALL, strategy)


def even_shards(subject: Subject) -> None:
    """P9: under FSDP2, built before or after sharding, with as many rows on every rank."""
    for strategy in (Strategy.FSDP2, Strategy.FSDP2_BEFORE):
        refusal(subject, EVEN, strategy)


def uneven_shards(subject: Subject) -> None:
    """P9: under FSDP2, where the ranks have different numbers of rows."""
    refusal(subject, UNEVEN, Strategy.FSDP2)


def empty_shards(subject: Subject) -> None:
    """P9: under FSDP2, where parameters have fewer rows than there are ranks."""
    refusal(subject, EMPTY, Strategy.FSDP2)


def dead_layers(subject: Subject) -> None:
    """P9: under FSDP2, where parameters in the groups never have a gradient."""
    refusal(subject, DEAD, Strategy.FSDP2)


def flat_shards(subject: Subject) -> None:
    """P9: under FSDP1, which gives each rank flat pieces of the parameters."""
    refusal(subject, EVEN, Strategy.FSDP1)


def same_keys(subject: Subject) -> None:
    """P9: a state dict has the same keys and plain values on every rank, from the start."""
    for strategy in (Strategy.DDP, Strategy.FSDP2):
        first, *others = _results(subject, keys_together, ALL, strategy)
        for rank, found in enumerate(others, 1):
            for ours, theirs in zip(first, found, strict=True):
                wrong = sorted(key for key in ours | theirs if ours.get(key) != theirs.get(key))
                expect(
                    not wrong, f"{strategy}: the state dicts of rank 0 and {rank} differ in {wrong}"
                )


def other_ranks(subject: Subject) -> None:
    """P9: a run resumes on another number of ranks: one, and from one.

    From full state dicts, and from those that `torch.distributed.checkpoint` writes to disk.
    """
    for strategy in (Strategy.DDP, Strategy.FSDP2):
        if bound(subject, strategy) is None:
            continue
        for route, shapes in ((Route.FULL, ALL), (Route.DISK, TRAINED)):
            with tempfile.TemporaryDirectory() as folder:
                _resumes(subject, shapes, strategy, route, Path(folder))


def _resumes(
    subject: Subject, shapes: Shapes, strategy: Strategy, route: Route, folder: Path
) -> None:
    average = average_of(subject, strategy)
    if any(_results(subject, save_together, shapes, strategy, folder / "several", (route,))):
        return  # refused
    setting, ranks = Setting.of(subject), subject.processes
    one = shared_ranks(1)
    succeeded(one.call(save_alone, setting, shapes, average, folder / "one", (route,)))
    found = one.call(resume_alone, setting, shapes, average, folder / "several", route)
    compare(subject, shapes, strategy, found, f"resuming on 1 rank ({route})")
    found = _results(subject, resume_together, shapes, strategy, folder / "one", route)
    compare(subject, shapes, strategy, found, f"resuming on {ranks} ranks ({route})")


def refusal(subject: Subject, shapes: Shapes, strategy: Strategy) -> str:
    """Train in several processes, and hold every rank to one process.

    Returns:
        Why hub refused on every rank, with the weights as they were; "" if it trained.

    Raises:
        AssertionError: The result is another, or a rank failed.
    """
    steps = STEPS if bound(subject, strategy) is not None else 1
    found = _results(subject, together, shapes, strategy, steps)
    if not all(run.refusal for run in found):
        compare(subject, shapes, strategy, found)
    return str(found[0].refusal)


def _results(subject: Subject, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Return what a function gives on every rank."""
    ranks = shared_ranks(subject.processes)
    return succeeded(ranks.call(function, Setting.of(subject), *arguments))


def succeeded(found: list[Any]) -> list[Any]:
    """Return what every rank gave.

    Raises:
        AssertionError: A rank failed.
    """
    failed = {rank: each for rank, each in enumerate(found) if isinstance(each, Failure)}
    if failed:
        rank, failure = min(failed.items(), key=lambda item: item[1].error == "TimeoutError")
        raise AssertionError(f"rank {rank} of {len(found)} fails: {failure}\n{failure.where}")
    return found


def compare(
    subject: Subject, shapes: Shapes, strategy: Strategy, found: list[Run], where: str = ""
) -> None:
    """Hold what every rank ended with to one process.

    Args:
        subject: Of as many processes as the gradients came from.
        shapes: Of the model.
        strategy: How it was spread.
        found: What the ranks gave.
        where: What was done, for the message.

    Raises:
        AssertionError: A rank failed, or is off by more than the `bound`.
    """
    tolerance = bound(subject, strategy)
    steps = STEPS if tolerance is not None else 1
    expected = reference(Setting.of(subject), shapes, average_of(subject, strategy), steps)
    for rank, run in enumerate(succeeded(found)):
        off = distance(run, expected, tolerance)
        expect(
            off == 0,
            f"{where or 'training'} under {strategy}, rank {rank} is {off:.2g} off one process",
        )


def distance(run: Run, expected: Run, tolerance: float | None) -> float:
    """Return by how much a run is off another, 0 within the tolerance (see `bound`)."""
    if run.refusal:
        return float("inf")
    pairs = [*zip(run.weights, expected.weights, strict=True), (run.evaluated, expected.evaluated)]
    if tolerance is None:
        return float(max(_units(a, b) for a, b in pairs[:-1]) > 1)
    worst = max((a.double() - b.double()).abs().max().item() for a, b in pairs)
    return worst if not worst <= tolerance else 0.0


def bound(subject: Subject, strategy: Strategy) -> float | None:
    """Return how far a run of `STEPS` steps may be off one process; None: see below.

    Nothing, wherever both compute the same. A native step that is not elementwise sums each shard
    by itself. In bf16, the kernels for CPUs round the vector body and the scalar tail of a tensor
    differently, and a shard's tail is elsewhere: one step is then within one unit in the last
    place of the tensor's largest weight, and further ones are not compared.
    """
    sharding = sharding_of(subject.spec)
    native = sharding is not None and sharding.kind == "native"
    if strategy.is_ddp or not native:
        return 0.0
    if subject.precision != "fp32":
        return None
    return 0.0 if sharding is not None and sharding.elementwise else SUMS_OF_SHARDS


def average_of(subject: Subject, strategy: Strategy) -> Average:
    """Return how the ranks average; all powers of two do it alike."""
    ranks = subject.processes
    if ranks & (ranks - 1) == 0:
        return Average(PARTS)
    return Average(ranks, divides_first=strategy.is_ddp)


@cache
def reference(setting: Setting, shapes: Shapes, average: Average, steps: int) -> Run:
    """Return the run in one process."""
    (run,) = succeeded(shared_ranks(1).call(alone, setting, shapes, average, steps))
    return run  # type: ignore[no-any-return]


def _units(found: Tensor, expected: Tensor) -> float:
    """Return how far a bf16 tensor is off, in units of the last place of its largest element."""
    exponent = torch.frexp(expected.float().abs().max()).exponent.item()
    return float((found.float() - expected.float()).abs().max().item() / 2.0 ** (exponent - 8))
