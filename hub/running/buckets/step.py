"""Step parameters bucket by bucket, each made ready for its step."""

from __future__ import annotations

from itertools import chain, zip_longest
from typing import TYPE_CHECKING

from hub.measuring import local_part
from hub.running.buckets.rounding import ROUNDED, put_bits, take_bits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor
    from torch.optim import Optimizer

    from hub.running.buckets.offload import Host
    from hub.running.buckets.rounding import Rounding
    from hub.running.buckets.space import Space
    from hub.running.stand_ins import StandIn, StandInStep

    Bucket = list[StandIn]

ELEMENTS = 1 << 22
"""About how many elements a bucket has; a larger parameter is a bucket alone."""


class BucketStep:
    """Steps the parameters of an optimizer in buckets; has the methods of a `StandInStep`.

    Args:
        stand_ins: Runs the step of the optimizer's class.
        rounding: Rounds fp32 copies into bf16 and fp16 weights, if asked for.
        host: Keeps the state, if asked for.
        space: Where the copies are.
        together: Whether all parameters have to be stepped at once.
    """

    def __init__(
        self,
        stand_ins: StandInStep,
        rounding: Rounding | None,
        host: Host | None,
        space: Space,
        *,
        together: bool,
    ) -> None:
        self._stand_ins, self._rounding, self._host = stand_ins, rounding, host
        self._space, self._together = space, together

    def begin(self) -> None:
        """Start a new step."""
        self._stand_ins.begin()

    def run(self, optimizer: Optimizer, items: Sequence[StandIn]) -> None:
        """Step these parameters; those of one group in its order."""
        buckets = [[*items]] if self._together else list(in_buckets(items))
        host = self._host
        if host is None:
            for bucket in buckets:
                self._step(optimizer, bucket)
            return
        parameters = [_parameters(bucket) for bucket in buckets]
        try:
            host.fetch(optimizer, parameters[0])
            for bucket, own, following in zip_longest(buckets, parameters, parameters[1:]):
                host.fetch(optimizer, following or [])
                host.await_arrival(optimizer, own)
                self._step(optimizer, bucket)
                host.store(optimizer, own)
        except BaseException:
            host.end()  # what has not been waited for
            host.store(optimizer, [*chain.from_iterable(parameters)])
            host.end()
            raise

    def rewind(self, optimizer: Optimizer) -> None:
        """Set the counters of all groups back to the beginning of the step."""
        self._stand_ins.rewind(optimizer)

    def end(self, optimizer: Optimizer) -> None:
        """End a step."""
        self._stand_ins.end(optimizer)
        if self._rounding is not None:
            self._rounding.count(optimizer)
        if self._host is not None:
            self._host.end()

    def _step(self, optimizer: Optimizer, bucket: Bucket) -> None:
        rounding = self._rounding
        if rounding is None:
            self._stand_ins.run(optimizer, bucket)
            return
        rounded = [item for item in bucket if item.tensor.dtype in ROUNDED and _steps(item)]
        bits = {item.parameter: take_bits(optimizer, item.parameter) for item in rounded}
        on_cpu = [local_part(item.tensor) for item in rounded if item.tensor.device.type == "cpu"]
        self._space.clear(2 * sum(weight.numel() for weight in on_cpu))
        try:
            copies = [
                rounding.copied(item, bits[item.parameter]) if item.parameter in bits else item
                for item in bucket
            ]
            self._stand_ins.run(optimizer, copies)
            for item, copy in zip(bucket, copies, strict=True):
                if copy is not item:
                    old = bits[item.parameter]
                    bits[item.parameter] = rounding.round(item, copy.tensor, old)
        finally:
            for parameter, own in bits.items():
                put_bits(optimizer, parameter, own)


def in_buckets(items: Sequence[StandIn]) -> Iterator[Bucket]:
    """Yield all items in order, in buckets of about `ELEMENTS` elements."""
    sizes = [item.tensor.numel() if _steps(item) else 0 for item in items]
    for part in bucket_slices(sizes):
        yield [*items[part]]


def bucket_slices(sizes: Sequence[int]) -> Iterator[slice]:
    """Yield which parameters of these sizes share a bucket."""
    start = elements = 0
    for index, size in enumerate(sizes):
        if index > start and elements + size > ELEMENTS:
            yield slice(start, index)
            start, elements = index, 0
        elements += size
    yield slice(start, len(sizes))


def _parameters(items: Sequence[StandIn]) -> list[Tensor]:
    return [item.parameter for item in items if _steps(item)]


def _steps(item: StandIn) -> bool:
    """Whether a parameter is stepped at all."""
    return item.tensor.grad is not None
