"""Step parameters bucket by bucket, each with its state on the device."""

from __future__ import annotations

from itertools import chain, zip_longest
from typing import TYPE_CHECKING

from hub.running.buckets.sizes import in_buckets, steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torch.optim import Optimizer

    from hub.running.buckets.offload import Host
    from hub.running.buckets.order import Order
    from hub.running.buckets.rounded import RoundedStep
    from hub.running.stand_ins import StandIn, StandInStep


class BucketStep:
    """Steps the parameters of an optimizer in buckets; has the methods of a `StandInStep`.

    Args:
        stand_ins: Runs the step of the optimizer's class.
        rounded: Runs it with fp32 copies of bf16 and fp16 weights, if asked for.
        host: Keeps the state, if asked for.
        order: Foresees what is stepped next, if `run` gets parameters one by one.
        together: Whether all parameters have to be stepped at once.
    """

    def __init__(
        self,
        stand_ins: StandInStep,
        rounded: RoundedStep | None,
        host: Host | None,
        order: Order | None,
        *,
        together: bool,
    ) -> None:
        self._stand_ins, self._rounded, self._host = stand_ins, rounded, host
        self._order, self._together = order, together

    def begin(self) -> None:
        """Start a new step."""
        self._stand_ins.begin()
        if self._order is not None:
            self._order.begin()

    def run(self, optimizer: Optimizer, items: Sequence[StandIn]) -> None:
        """Step these parameters; those of one group in its order."""
        buckets = [[*items]] if self._together else list(in_buckets(items))
        host, step = self._host, self._rounded or self._stand_ins
        if host is None:
            for bucket in buckets:
                step.run(optimizer, bucket)
            return
        parameters = [_parameters(bucket) for bucket in buckets]
        try:
            host.fetch(optimizer, parameters[0])
            for bucket, own, following in zip_longest(buckets, parameters, parameters[1:]):
                host.fetch(optimizer, self._foreseen(optimizer, own) + (following or []))
                host.await_arrival(optimizer, own)
                step.run(optimizer, bucket)
                host.store(optimizer, own)
        except BaseException:
            host.end()  # what has not been waited for
            host.store(optimizer, [*chain.from_iterable(parameters)])
            self._withdraw(optimizer)
            host.end()
            raise

    def rewind(self, optimizer: Optimizer) -> None:
        """Set the counters of all groups back to the beginning of the step."""
        self._stand_ins.rewind(optimizer)

    def end(self, optimizer: Optimizer) -> None:
        """End a step."""
        self._stand_ins.end(optimizer)
        if self._rounded is not None:
            self._rounded.end(optimizer)
        if self._host is not None:
            self._withdraw(optimizer)
            self._host.end()
        if self._order is not None:
            self._order.end()

    def _foreseen(self, optimizer: Optimizer, own: Sequence[Tensor]) -> list[Tensor]:
        """Return parameters that are expected after these; put back what was expected before."""
        if self._order is None or self._host is None:
            return []
        following, late = self._order.follow(optimizer, own)
        self._host.store(optimizer, late)
        return following

    def _withdraw(self, optimizer: Optimizer) -> None:
        """Put back what was expected and has not come."""
        if self._order is not None and self._host is not None:
            self._host.store(optimizer, self._order.withdraw())


def _parameters(items: Sequence[StandIn]) -> list[Tensor]:
    return [item.parameter for item in items if steps(item)]
