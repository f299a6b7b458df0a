"""Turn an optimizer into its layerwise form: the same object, of a generated subclass."""

from __future__ import annotations

import weakref
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from hub.errors import UnsupportedError
from hub.running.layerwise.clipping import norm, total
from hub.running.layerwise.engine import Engine, measure
from hub.running.layerwise.self_ending import SelfEndingEngine
from hub.running.sharded.attach import settle_before_step, stay_conducted
from hub.running.sharded.step import ShardedStep
from hub.running.steps import members_of, step_without_hooks, subclass, unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from torch.nn import Module
    from torch.optim import Optimizer

    from hub.running.layerwise.settings import Settings
    from hub.running.sharded.late import LateSharding


def make_layerwise(
    optimizer: Optimizer, settings: Settings, model: Module, late: LateSharding
) -> None:
    """Make an optimizer step inside the backward pass, from the next one on.

    Until it is detached, its class is a generated subclass of its original class.

    Raises:
        UnsupportedError: Another optimizer steps one of its parameters inside the backward pass.
    """
    live: Any = optimizer
    form = _form(live.__class__)
    engine = SelfEndingEngine if settings.self_ending else Engine
    step = ShardedStep(settings.stepping.of(form.eager_step, one_by_one=True), late)
    late.steps_members = True
    live.hub_engine = engine(optimizer, settings, step, model)
    live.__class__ = form
    late.on_replaced = weakref.WeakMethod(live.hub_engine.place_hooks)
    settle_before_step(optimizer, late)


class Layerwise(torch.optim.Optimizer):
    """The methods of an optimizer's generated subclass.

    Without an engine, as after `detach` if a wrapper's subclass keeps this class, it steps eagerly.
    """

    hub_engine: Engine | None = None
    eager_step: ClassVar[Callable[..., Any]]
    hub_upstream: ClassVar[type[torch.optim.Optimizer]]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters that still have a gradient, and end the step.

        Args:
            closure: Called first; its backward pass updates the parameters. Trainers that pass a
                closure (Lightning) expect one call per step.

        Returns:
            What the closure returns, or None.
        """
        engine = getattr(self, "hub_engine", None)
        if engine is None:
            # A schedule's wrapper around this function outlives `detach` (torch 2.13,
            # `LRScheduler.__init__`).
            if hasattr(self, "eager_step"):
                return self.hub_upstream.step(self, closure)
            return type(self).step(self, closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        engine.end_step()
        return loss

    # Without this mark torch would wrap the step, to call the step hooks.
    step.hooked = True  # type: ignore[attr-defined]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Free the gradients, including those that accumulate.

        Args:
            set_to_none: If False, the next step updates with zeros those parameters that had a
                gradient before and get none until then. The zeros take no memory.

        Raises:
            UnsupportedError: Some gradients of this step have already been used.
        """
        # Lightning's wrapper (2.6) is a subclass and calls this on itself.
        engine = getattr(unwrapped(self), "hub_engine", None)
        if engine is not None:
            engine.drop_gradients(set_to_none=set_to_none)
        else:
            self.hub_upstream.zero_grad(self, set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, whose parameters are updated inside the backward pass too."""
        self.hub_upstream.add_param_group(self, param_group)
        if self.hub_engine is None:
            return
        try:
            self.hub_engine.place_hooks()
        except UnsupportedError:
            self.param_groups.pop()
            raise


def make_eager(optimizer: Optimizer) -> None:
    """Make an optimizer step eagerly again, as an instance of its original class."""
    engine: Engine | None = vars(optimizer).pop("hub_engine", None)
    if engine is None:
        return
    engine.remove()
    if "hub_upstream" in vars(type(optimizer)):  # and not in a base of a wrapper's subclass
        optimizer.__class__ = type(optimizer).hub_upstream  # type: ignore[attr-defined]
        stay_conducted(optimizer, engine.settings.stepping)


def grad_norm(optimizer: Optimizer, loss: Tensor | None = None) -> Tensor:
    """Return the norm of all gradients of an optimizer's parameters, a scalar.

    Without `loss`, measure the current gradients. Gradients that the optimizer has used inside the
    backward pass count with their norm before clipping, until the next ones are computed.

    Args:
        optimizer: An optimizer built by hub, or any other torch optimizer.
        loss: Measure the gradients of this loss, by an extra backward pass that keeps the graph and
            updates nothing. `clipping="exact"` needs this before each `loss.backward()`, as LOMO
            does it (https://arxiv.org/abs/2306.09782, section 3.2).

    Raises:
        UnsupportedError: `loss` is passed for an optimizer that does not step inside the backward
            pass, or in the middle of a step.
    """
    members = members_of(unwrapped(optimizer))
    if loss is None:
        return _grad_norm(members[0]) if len(members) == 1 else total(map(_grad_norm, members))
    engines = [getattr(member, "hub_engine", None) for member in members]
    for member, engine in zip(members, engines, strict=True):
        if engine is None:
            raise UnsupportedError(
                f"{type(member).__name__} does not step inside the backward pass",
                where="hub.grad_norm",
                fix="call loss.backward(), then hub.grad_norm(optimizer)",
            )
        member.hub_late_sharding.settle()
    return measure([engine for engine in engines if engine is not None], loss)


def _grad_norm(optimizer: Any) -> Tensor:
    """Return the norm of the current gradients of one optimizer."""
    late: LateSharding | None = getattr(optimizer, "hub_late_sharding", None)
    if late is not None:
        late.settle()
    engine: Engine | None = getattr(optimizer, "hub_engine", None)
    if engine is not None:
        return engine.grad_norm()
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    return total(norm(p.grad) for p in parameters if p.grad is not None)


@cache
def _form(upstream: Any) -> Any:
    """Return the subclass of an optimizer's class that steps inside the backward pass."""
    return subclass(Layerwise, upstream, eager_step=staticmethod(step_without_hooks(upstream)))
