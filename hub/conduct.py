"""What hub adds to a finished optimizer, and how to take it off again."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

import hub
from hub import checkpoint
from hub.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.optim import Optimizer

    from hub.planning import Plan
    from hub.spec import OptimizerSpec


def attach(optimizer: Optimizer, plan: Plan, spec: OptimizerSpec) -> None:
    """Put the plan, and the hooks it asks for, on an optimizer.

    The plan becomes `optimizer.hub_plan`; hooks are torch's own, so `step()` is not wrapped.
    """
    handles = []
    if plan.max_grad_norm is not None:
        handles.append(optimizer.register_step_pre_hook(_clipping(plan.max_grad_norm)))
    checkpoint.attach(
        optimizer,
        checkpoint.Record(
            version=hub.__version__,
            optimizer=spec.state_of or spec.name,
            arguments={argument.name: argument.value for argument in plan.arguments},
            shaping=spec.shaping,
        ),
    )
    optimizer.hub_plan = plan  # type: ignore[attr-defined]
    optimizer._hub_handles = handles  # type: ignore[attr-defined]  # noqa: SLF001 - ours


def detach(optimizer: Optimizer) -> None:
    """Remove the hooks that `hub.build` placed: those on the model, and gradient clipping.

    State dicts stay as they are: without that, checkpoints would change their form.
    """
    for handle in optimizer.__dict__.pop("_hub_handles", []):
        handle.remove()


@contextmanager
def eval_mode(optimizer: Optimizer) -> Iterator[None]:
    """Give the model its evaluation weights inside the block.

    For optimizers that train and evaluate with different weights (ScheduleFree); for all others it
    does nothing. Wrappers that keep the optimizer in `.optimizer`, as Accelerate's does, are seen
    through.
    """
    while not hasattr(optimizer, "eval") and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    switch: Any = optimizer
    # Before the first step both modes have the same weights, and switching would leave empty
    # entries in the state of schedulefree 1.4.1.
    switches = hasattr(switch, "eval") and switch.state
    if not switches or not switch.param_groups[0].get("train_mode", True):
        yield
        return
    switch.eval()
    try:
        yield
    finally:
        switch.train()


def _clipping(max_grad_norm: float) -> Any:
    def clip(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # torch 2.13 hands over the optimizer itself as the first of the arguments of `step`.
        if any(value is not None for value in (*args[1:], *kwargs.values())):
            raise UnsupportedError(
                "max_grad_norm cannot clip gradients that a closure computes inside the step",
                where="max_grad_norm",
                fix="clip in the closure, and build without max_grad_norm",
            )
        parameters = chain.from_iterable(group["params"] for group in optimizer.param_groups)
        torch.nn.utils.clip_grad_norm_(list(parameters), max_grad_norm)

    return clip
