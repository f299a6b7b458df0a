"""Giving an optimizer its layerwise form: the same object, of a class of its own."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from hub.errors import UnsupportedError
from hub.running.layerwise.clipping import norm, total
from hub.running.layerwise.engine import Engine
from hub.running.layerwise.self_ending import SelfEndingEngine
from hub.running.steps import unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from torch.optim import Optimizer

    from hub.running.layerwise.settings import Settings


def make_layerwise(optimizer: Optimizer, settings: Settings) -> None:
    """Let an optimizer step inside the backward pass, from the next one on.

    Its class becomes a subclass of what it was, until it is detached.

    Raises:
        UnsupportedError: Another optimizer steps a parameter inside the backward pass.
    """
    live: Any = optimizer
    form = _form(live.__class__)
    engine = SelfEndingEngine if settings.self_ending else Engine
    live.hub_engine = engine(optimizer, settings, form.eager_step)
    live.__class__ = form


class Layerwise(torch.optim.Optimizer):
    """What the class of an optimizer gets in front of it.

    Without an engine, as after `detach` where somebody's subclass keeps it, it steps eagerly.
    """

    hub_engine: Engine | None = None
    eager_step: ClassVar[Callable[..., Any]]
    upstream: ClassVar[type[torch.optim.Optimizer]]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update what has a gradient left, and end the step.

        Args:
            closure: Is called before that, and its backward pass is the one that steps. Trainers
                that give one (Lightning) call it once a step, as here.

        Returns:
            What the closure returns, or None.
        """
        engine = getattr(self, "hub_engine", None)
        if engine is None:
            # A schedule's wrapper of this very function outlives `detach` (torch 2.13,
            # `LRScheduler.__init__`).
            if isinstance(self, Layerwise):
                return super().step(closure)
            return type(self).step(self, closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        engine.end_step()
        return loss

    # torch wraps every step without this mark into one that calls the step hooks.
    step.hooked = True  # type: ignore[attr-defined]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Free the gradients, those that accumulate included.

        Args:
            set_to_none: False: the next step updates with zeros what gets no gradient until then,
                if it had one before. No memory is taken for them.

        Raises:
            UnsupportedError: Gradients that are to be dropped have been used.
        """
        # Lightning's wrapper (2.6) is a subclass that calls this on itself.
        engine = getattr(unwrapped(self), "hub_engine", None)
        if engine is not None:
            engine.drop_gradients(set_to_none=set_to_none)
        else:
            super().zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, whose parameters step inside the backward pass as well."""
        super().add_param_group(param_group)
        if self.hub_engine is None:
            return
        try:
            self.hub_engine.place_hooks()
        except UnsupportedError:
            self.param_groups.pop()
            raise


def make_eager(optimizer: Optimizer) -> None:
    """Let an optimizer step eagerly again, as an instance of the class that it was."""
    if not isinstance(optimizer, Layerwise) or optimizer.hub_engine is None:
        return
    engine: Engine = vars(optimizer).pop("hub_engine")
    engine.remove()
    if "upstream" in vars(type(optimizer)):  # and no class of somebody else's is before it
        optimizer.__class__ = type(optimizer).upstream  # type: ignore[assignment]


def grad_norm(optimizer: Optimizer, loss: Tensor | None = None) -> Tensor:
    """Return the norm of all gradients of an optimizer's parameters, a scalar.

    Without `loss`: of the gradients that are there now. Those that an optimizer has used inside the
    backward pass count as there, as they were before clipping, until the next ones come.

    Args:
        optimizer: Built by hub, or any other one.
        loss: Measure the gradients of this loss, by a backward pass of its own that keeps the graph
            and updates nothing. What `clipping="exact"` needs before each `loss.backward()`; LOMO's
            own way (https://arxiv.org/abs/2306.09782, section 3.2).

    Raises:
        UnsupportedError: `loss` is given for an optimizer that does not step inside the backward
            pass, or in the middle of a step.
    """
    inner = unwrapped(optimizer)
    engine: Engine | None = getattr(inner, "hub_engine", None)
    if engine is not None:
        return engine.grad_norm() if loss is None else engine.measure(loss)
    if loss is not None:
        raise UnsupportedError(
            f"{type(inner).__name__} does not step inside the backward pass",
            where="hub.grad_norm",
            fix="call loss.backward(), and then hub.grad_norm(optimizer)",
        )
    parameters = (p for group in inner.param_groups for p in group["params"])
    return total(norm(p.grad) for p in parameters if p.grad is not None)


@cache
def _form(upstream: Any) -> Any:
    """Return the subclass of an optimizer's class that steps inside the backward pass."""
    step = upstream.step
    while hasattr(step, "hooked"):  # torch's wrapper, which calls step hooks
        step = step.__wrapped__
    own = {"eager_step": staticmethod(step), "upstream": upstream}
    return type(f"Layerwise{upstream.__name__}", (Layerwise, upstream), own)
