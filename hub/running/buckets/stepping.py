"""How the step of an optimizer's class is run: plainly, or in buckets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from hub.running.buckets.offload import Host
from hub.running.buckets.order import Order
from hub.running.buckets.rounded import RoundedStep
from hub.running.buckets.rounding import ROUNDED, Rounding
from hub.running.buckets.space import Space
from hub.running.buckets.step import BucketStep
from hub.running.stand_ins import StandInStep
from hub.spec import Trait

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.optim import Optimizer

    from hub.plans import Plan
    from hub.spec import OptimizerSpec


@dataclass(frozen=True)
class Stepping:
    """How an optimizer is stepped where hub steps it."""

    counters: frozenset[str] = frozenset()
    """The keys of a group that a step changes."""
    rounding: str | None = None
    """As in `hub.arguments.LowMemory`."""
    together: bool = False
    """Whether all parameters have to be stepped at once."""
    elementwise: bool = False
    """Whether each element is updated alone."""
    host: Host | None = field(default=None, compare=False)
    """Keeps the optimizer's state, if `offload` asks for it."""

    @property
    def in_buckets(self) -> bool:
        """Whether every step goes through buckets."""
        return self.rounding is not None or self.host is not None

    def of(
        self, step: Callable[[Optimizer], object], *, one_by_one: bool = False
    ) -> StandInStep | BucketStep:
        """Return what runs a class's step.

        Args:
            step: Has no hooks.
            one_by_one: Whether parameters are stepped one by one, each when its gradient is there.
        """
        copies = {} if self.rounding is None else dict.fromkeys(ROUNDED, torch.float32)
        stand_ins = StandInStep(step, self.counters, copies)
        if not self.in_buckets:
            return stand_ins
        return BucketStep(
            stand_ins,
            self._rounded(stand_ins),
            self.host,
            Order() if one_by_one and self.host is not None else None,
            together=self.together,
        )

    def _rounded(self, stand_ins: StandInStep) -> RoundedStep | None:
        if self.rounding is None:
            return None
        space = Space()
        return RoundedStep(
            stand_ins,
            Rounding(keeps_bits=self.rounding == "split", space=space),
            space,
            together=self.together,
            elementwise=self.elementwise,
        )


def stepping_of(plan: Plan, spec: OptimizerSpec) -> Stepping:
    """Return how to step an optimizer, from its plan."""
    arguments: dict[str, Any] = plan.values
    return Stepping(
        counters=spec.step_counters,
        rounding=arguments.get("rounding"),
        together=Trait.PER_PARAMETER not in spec.traits,
        elementwise=spec.sharding is not None and spec.sharding.elementwise,
        host=None if arguments.get("offload") is None else Host(),
    )
