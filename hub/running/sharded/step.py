"""Step an optimizer whose parameters may be sharded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.running.sharded.members import own_rows
from hub.running.sharded.whole import WholeStep
from hub.running.stand_ins import StandInStep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch.optim import Optimizer

    from hub.running.buckets.step import BucketStep
    from hub.running.sharded.exchange import Exchange
    from hub.running.sharded.late import LateSharding
    from hub.running.sharded.members import Member
    from hub.running.stand_ins import StandIn


class ShardedStep:
    """Steps each parameter by its kind; has the methods of a `StandInStep`.

    Args:
        stand_ins: Runs the step of the optimizer's class.
        late: Has the sharded parameters.
    """

    def __init__(self, stand_ins: StandInStep | BucketStep, late: LateSharding) -> None:
        self._stand_ins, self.late, self._members = stand_ins, late, late.members

    def begin(self) -> None:
        """Start a new step."""
        self._stand_ins.begin()

    def run(self, optimizer: Optimizer, items: Sequence[StandIn]) -> None:
        """Step these parameters, which have to be the same on every rank.

        Whole parameters come first: if one of them fails, nothing else has changed.

        Args:
            optimizer: The optimizer.
            items: The parameters as their own stand-ins.

        Raises:
            HubError: The update of a whole parameter failed; raised on every rank.
        """
        if not self._members:
            self._stand_ins.run(optimizer, items)
            return
        at = {item.parameter: item for item in items}
        here: list[StandIn] = []
        whole: dict[Exchange, list[Member]] = {}
        for item in items:
            member = self._members.get(item.parameter)
            if member is None:
                here.append(item)
            elif member.kind == "rows":
                here.append(own_rows(item, member))
            elif member.parameter.grad is not None:
                whole.setdefault(member.exchange, []).append(member)
        for exchange, members in whole.items():
            step = WholeStep(
                exchange, at, lambda own: self._stand_ins.run(optimizer, own), self.late.name
            )
            try:
                step.run(members)
            except Exception:
                self._stand_ins.rewind(optimizer)
                raise
        if here:
            self._stand_ins.run(optimizer, here)

    def for_one(self) -> Callable[[Optimizer, StandIn], None]:
        """Return what steps one parameter, which every rank has to step, until the step ends."""
        if self._members or not isinstance(self._stand_ins, StandInStep):
            return lambda optimizer, item: self.run(optimizer, [item])
        return self._stand_ins.run_alone

    def end(self, optimizer: Optimizer) -> None:
        """End a step: count it in groups of which this rank has stepped nothing."""
        self._stand_ins.end(optimizer)
        self.late.touch_state()
