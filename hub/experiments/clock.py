"""Time what runs on a CPU or on a GPU, several things in turn."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class Time:
    """How long something took, in milliseconds."""

    ms: float
    """Until the device was done."""
    host_ms: float
    """Until the call returned."""
    device_ms: float | None = None
    """Between events before and after it on the GPU's stream."""


@dataclass(frozen=True)
class Timed:
    """What is timed, and what has to be done before it each time."""

    run: Callable[[Any], object]
    """Takes what `prepare` returned."""
    prepare: Callable[[], object] = lambda: None


def once(timed: Timed, device: torch.device) -> Time:
    """Time it once."""
    prepared = timed.prepare()
    if device.type != "cuda":
        start = time.perf_counter()
        timed.run(prepared)
        ms = 1000 * (time.perf_counter() - start)
        return Time(ms, ms)
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    before.record()
    timed.run(prepared)
    after.record()
    returned = time.perf_counter()
    torch.cuda.synchronize(device)
    done = time.perf_counter()
    return Time(1000 * (done - start), 1000 * (returned - start), before.elapsed_time(after))


class StepClock:
    """Times what runs in a `with` block each time, without waiting for the device.

    Call `read` after the device has done what the block gave it.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_device = device.type == "cuda"
        self._start = 0.0
        self._events: list[Any] = []
        self.host_ms: list[float] = []
        self.device_ms: list[float] = []

    def __enter__(self) -> None:
        if self._on_device:
            self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]
            self._events[0].record()
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.host_ms.append(1000 * (time.perf_counter() - self._start))
        if self._on_device:
            self._events[1].record()

    def read(self) -> None:
        """Take in the time between the last block's events."""
        if self._on_device:
            self.device_ms.append(self._events[0].elapsed_time(self._events[1]))


def in_turn(things: Sequence[Timed], device: torch.device, turn: int) -> list[Time]:
    """Time each of several things once, in the opposite order every other turn."""
    order = range(len(things))
    times = {which: once(things[which], device) for which in (order if turn % 2 else order[::-1])}
    return [times[which] for which in order]


def bandwidth(device: torch.device, size: int | None = None) -> float:
    """Return the memory's bandwidth in bytes per second: the best of several updates in place.

    An update in place, `a += b`, reads two tensors and writes one, as a step of SGD does.

    Args:
        device: Whose memory.
        size: Bytes of each of the two tensors; by default more than caches hold.
    """
    size = size or (1 << 30 if device.type == "cuda" else 1 << 27)
    a, b = (torch.zeros(size // 4, device=device) for _ in range(2))
    add = Timed(lambda _: a.add_(b))
    times = [once(add, device) for _ in range(6)][1:]
    return 3 * a.nbytes / (min(t.device_ms or t.ms for t in times) / 1000)
