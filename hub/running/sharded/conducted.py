"""Turn an optimizer into the form that hub steps: a generated subclass.

It steps sharded parameters by their kinds, and any parameters in buckets.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from hub.running.sharded.step import ShardedStep
from hub.running.stand_ins import StandIn
from hub.running.steps import (
    call_step_post_hooks,
    call_step_pre_hooks,
    step_without_hooks,
    subclass,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.optim import Optimizer

    from hub.running.buckets.stepping import Stepping
    from hub.running.sharded.late import LateSharding


def make_conducted(optimizer: Optimizer, late: LateSharding, stepping: Stepping) -> None:
    """Make an optimizer step sharded parameters by their kinds, and in buckets if asked for."""
    live: Any = optimizer
    form = _form(live.__class__)
    late.steps_members = True
    live.hub_step = ShardedStep(stepping.of(form.plain_step), late)
    live.hub_steps_always = stepping.in_buckets
    live.__class__ = form


class Conducted(torch.optim.Optimizer):
    """The methods of an optimizer's generated subclass."""

    hub_late_sharding: LateSharding
    hub_step: ShardedStep
    hub_steps_always: bool
    """Whether also without sharded parameters."""
    plain_step: ClassVar[Callable[..., Any]]
    hub_upstream: ClassVar[type[torch.optim.Optimizer]]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters; if some are sharded, every rank has to call this.

        Args:
            closure: Called first.

        Returns:
            What the closure returns, or None.

        Raises:
            HubError: The update failed on some rank; raised on every rank, with no weight changed.
        """
        self.hub_late_sharding.settle(for_good=True)
        if not (self.hub_late_sharding.members or self.hub_steps_always):
            return self.hub_upstream.step(self, closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        call_step_pre_hooks(self)
        self._step_all()
        call_step_post_hooks(self)
        return loss

    # Without this mark torch would wrap the step, to call the step hooks.
    step.hooked = True  # type: ignore[attr-defined]

    def _step_all(self) -> None:
        engine = self.hub_step
        engine.begin()
        engine.run(
            self,
            [
                StandIn(group, index, parameter, parameter)
                for group in self.param_groups
                for index, parameter in enumerate(group["params"])
            ],
        )
        engine.end(self)


@cache
def _form(upstream: Any) -> Any:
    """Return the subclass of an optimizer's class that hub steps."""
    return subclass(Conducted, upstream, plain_step=staticmethod(step_without_hooks(upstream)))
