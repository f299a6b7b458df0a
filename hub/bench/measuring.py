"""Measure one optimizer, in this process."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from hub.bench.result import Row
from hub.bench.subject import GAP, Subject
from hub.experiments import clock, memory
from hub.experiments.traffic import step_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch.optim import Optimizer

    from hub.bench.settings import Settings
    from hub.experiments.clock import Time
    from hub.experiments.contender import Contender

SECONDS = 0.6
LEAST, MOST = 3, 50
"""How many steps are timed in about these seconds."""
EARLIER = 3
"""The steps before those whose time counts: the first ones of each optimizer make state."""


def measure(settings: Settings, contender: Contender) -> Row:
    """Return the figures of one optimizer.

    Raises:
        HubError: It cannot be built for this model on this device.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    device = torch.device(settings.device)
    bandwidth = clock.bandwidth(device)
    subject = Subject.make(settings, contender)
    clock.once(subject.alone(), device)  # what torch loads for its first backward pass
    extra = torch.cuda.memory_allocated(device) - subject.held if device.type == "cuda" else 0
    meter = memory.meter(device)
    meter.start(subject.held)
    start = time.perf_counter()
    optimizer = subject.build()
    built = time.perf_counter() - start
    step = subject.step(optimizer)
    first, _ = (clock.once(step, device) for _ in range(2))
    peak = meter.peak()
    state = memory.state_bytes(optimizer)
    arms = [step, subject.fused(), subject.alone()]
    turns = [clock.in_turn(arms, device, turn) for turn in _turns(subject)]
    own, fused, alone = (list(times) for times in zip(*turns[1:], strict=True))
    return Row(
        label=contender.label,
        parameters=sum(p.numel() for p in subject.model.parameters()),
        tensors=len(list(subject.model.parameters())),
        build_seconds=built,
        fused_ms=_median(fused, "ms"),
        step_bytes=step_bytes(subject.model, state),
        bandwidth=bandwidth,
        state_bytes=state,
        peak_bytes=None if peak is None else peak - extra,
        **_figures(first, own, alone, _gap(optimizer)),
        refresh_gap=subject.usual_gap or _gap(optimizer),
    )


def _turns(subject: Subject) -> Iterator[int]:
    """Yield the numbers of the turns; the first one does not count."""
    steps = subject.settings.steps
    if steps is None and subject.gap is not None:
        steps = subject.gap + 1
    if steps is not None:
        yield from range(steps + 1)
        return
    end = time.perf_counter() + SECONDS
    for turn in range(MOST + 1):
        if turn > LEAST and time.perf_counter() > end:
            return
        yield turn


def _figures(
    first: Time, own: Sequence[Time], alone: Sequence[Time], gap: int | None
) -> dict[str, Any]:
    """Return the times of steps, without what the backward pass takes by itself."""
    refreshes = [t for n, t in enumerate(own, EARLIER) if gap and n % gap == 0]
    others = [t for t in own if t not in refreshes] or own
    ms, host, device = (_median(alone, key) or 0.0 for key in ("ms", "host_ms", "device_ms"))
    on_device = _median(others, "device_ms")
    return {
        "first_ms": first.ms - ms,
        "ms": _median(others, "ms") - ms,
        "host_ms": _median(others, "host_ms") - host,
        "device_ms": None if on_device is None else on_device - device,
        "refresh_ms": _median(refreshes or [first], "ms") - ms if gap else None,
        "slowest_ms": max(each.ms for each in own) - ms,
    }


def _median(times: Sequence[Time], key: str) -> Any:
    values = [getattr(each, key) for each in times]
    return None if None in values else median(values)


def _gap(optimizer: Optimizer) -> int | None:
    """Return the steps from one refresh of an optimizer to the next."""
    plan: Any = optimizer.hub_plan  # type: ignore[attr-defined]
    return {argument.name: argument.value for argument in plan.arguments}.get(GAP)
