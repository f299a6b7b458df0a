"""Decide late how parameters are sharded: `fully_shard` may come after the build.

It replaces the model's parameters by DTensors, and so does Accelerate, which also puts them into
the optimizer's groups. So the parameters that count are those of the first step, or of the first
state dict that is made or loaded.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch

from hub.groups.modules import plain_names
from hub.running.sharded.kinds import sharding_of
from hub.running.sharded.members import Members
from hub.running.sharded.meshes import is_sharded
from hub.spec import Sharding

if TYPE_CHECKING:
    from torch.nn import Module, Parameter
    from torch.optim import Optimizer

    from hub.plans import Plan
    from hub.spec import OptimizerSpec


class LateSharding:
    """Finds out how the parameters of an optimizer are sharded, and keeps it.

    Args:
        optimizer: Held weakly.
        model: Its model; held weakly.
        plan: The plan that the optimizer was built by.
        spec: The optimizer's spec.
    """

    def __init__(
        self, optimizer: Optimizer, model: Module, plan: Plan, spec: OptimizerSpec
    ) -> None:
        sharding = sharding_of(spec)
        self.members = Members(sharding or Sharding(), plan.values)
        self.is_native = sharding is None or sharding.kind == "native"
        self.name = plan.optimizer
        self._optimizer, self._model = weakref.ref(optimizer), weakref.ref(model)
        self._built = {
            name: weakref.ref(parameter)
            for group in optimizer.param_groups
            for name, parameter in zip(group["param_names"], group["params"], strict=True)
        }
        """The parameters that the optimizer was built with, by name."""
        self._groups = -1
        """How many groups have been settled for good, by a step."""

    def settle(self, *, for_good: bool = False) -> None:
        """Adopt the model's present parameters, and lay out those that are sharded.

        Args:
            for_good: Whether a step begins; later ones look at new groups only.
        """
        optimizer: Any = self._optimizer()
        if len(optimizer.param_groups) == self._groups:
            return
        model = self._model()
        if model is not None:
            _replace(optimizer, model)
        self.members.add_new(optimizer.param_groups)
        self._move_states(optimizer)
        if for_good:
            self._groups = len(optimizer.param_groups)

    def touch_state(self) -> None:
        """Leave a trace of state on a rank that owns nothing.

        torch's distributed checkpoints look whether an optimizer has state, and must find the same
        on every rank (torch 2.13, `_init_optim_state`).
        """
        state = self._optimizer().state  # type: ignore[union-attr]
        first = next(iter(self.members), None)
        if first is not None and not state:
            state[first.parameter] = {}

    def _move_states(self, optimizer: Any) -> None:
        """Move what state the replaced parameters had to those in their place.

        Adagrad (torch 2.13) has state before its first step.
        """
        for group in optimizer.param_groups:
            for name, parameter in zip(group["param_names"], group["params"], strict=True):
                built = self._built.get(name, lambda: None)()
                if built is None or built is parameter:
                    continue
                self._built[name] = weakref.ref(parameter)
                if built in optimizer.state:
                    from hub.running.sharded.state import place_state

                    state = optimizer.state.pop(built)
                    own = place_state(parameter, self.members.get(parameter), state)
                    if own is not None:
                        optimizer.state[parameter] = own


def _replace(optimizer: Any, model: Module) -> None:
    """Put the model's sharded parameters in the place of those that they replaced."""
    present = _by_name(model)
    for group in optimizer.param_groups:
        for index, name in enumerate(group["param_names"]):
            before, now = group["params"][index], present.get(name)
            if now is None or now is before or not is_sharded(now):
                continue
            group["params"][index] = now
            # torch's distributed checkpoints make state by a step with gradients of zeros (torch
            # 2.13, `_init_optim_state`), which they put into the groups' parameters.
            if before.grad is not None and now.grad is None and not before.grad.any():
                now.grad = torch.zeros_like(now)


def _by_name(model: Module) -> dict[str, Parameter]:
    plain = plain_names(model)
    return {plain(name): p for name, p in model.named_parameters(remove_duplicate=False)}
