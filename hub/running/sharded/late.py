"""Decide late how parameters are sharded: `fully_shard` may come after the build.

It replaces the model's parameters by DTensors, and so does Accelerate, which also puts them into
the optimizer's groups. So the parameters that count are those of the first step, or of the first
state dict that is made or loaded.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch

from hub.errors import UnsupportedError
from hub.groups.flat import is_fsdp1_piece
from hub.running.sharded.flat import FSDP1, check_not_flattened, check_trains_pieces
from hub.running.sharded.kinds import sharding_of
from hub.running.sharded.members import Members
from hub.running.sharded.meshes import is_sharded
from hub.running.sharded.present import present_parameters
from hub.running.sharded.refusals import check_sharded
from hub.spec import Sharding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor
    from torch.nn import Module
    from torch.optim import Optimizer

    from hub.plans import Plan
    from hub.spec import OptimizerSpec

    Places = list[tuple[dict[str, Any], int, Tensor]]


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
        self.members = Members(sharding_of(spec) or Sharding(), plan.values)
        self.name = plan.optimizer
        self.steps_members = False
        """Whether the optimizer has a form that steps members."""
        self.on_replaced: Callable[[], Callable[[], None] | None] = _nothing
        """A weak reference to what is called when parameters have been replaced."""
        self._spec, self._arguments = spec, plan.values
        self._optimizer, self._model = weakref.ref(optimizer), weakref.ref(model)
        self._built = {
            name: weakref.ref(group["params"][index]) for group, index, name in _named(optimizer)
        }
        """The parameters that the optimizer was built with, by name."""
        self._groups = -1
        """How many groups have been settled for good, by a step."""

    def settle(self, *, for_good: bool = False) -> None:
        """Adopt the model's present parameters, and lay out those that are sharded.

        Args:
            for_good: Whether a step begins; later ones look at new groups only.

        Raises:
            UnsupportedError: The optimizer cannot train what the model has become; nothing has
                changed.
        """
        optimizer: Any = self._optimizer()
        if len(optimizer.param_groups) == self._groups:
            return
        model = self._model()
        replaced = [] if model is None else _replaced(optimizer, model)
        self._check(optimizer, model, replaced)
        for group, index, now in replaced:
            _replace(group, index, now)
        self.members.add_new(optimizer.param_groups)
        if self._follow_replaced(optimizer):
            _choose_implementation(optimizer)
            call = self.on_replaced()
            if call is not None:
                call()
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

    def _check(self, optimizer: Any, model: Module | None, replaced: Places) -> None:
        if model is not None:
            check_not_flattened(self._spec, model)
        now = {(id(group), index): parameter for group, index, parameter in replaced}
        named = [
            (name, now.get((id(group), index), group["params"][index]))
            for group, index, name in _named(optimizer)
        ]
        check_sharded(self._spec, self._arguments, named)
        sharded = next((name for name, parameter in named if is_sharded(parameter)), None)
        if sharded is not None and not self.steps_members and self.members.may_exist:
            raise UnsupportedError(
                f"{self.name} was built before torch.distributed was initialized, and the model "
                "has been sharded since",
                where=sharded,
                fix="call init_process_group before hub.build",
            )
        for name, parameter in named:
            if is_fsdp1_piece(parameter):
                check_trains_pieces(self._spec, FSDP1, name)
                self._check_state(optimizer, name, parameter)

    def _check_state(self, optimizer: Any, name: str, parameter: Any) -> None:
        """Refuse state from before FSDP1, which replaces the data of the same parameter.

        Adagrad (torch 2.13) has state before its first step.
        """
        for value in optimizer.state.get(parameter, {}).values():
            if isinstance(value, torch.Tensor) and value.ndim and value.shape != parameter.shape:
                raise UnsupportedError(
                    f"{self.name} had state of {name} before FSDP1 split it",
                    where=name,
                    fix="build after FullyShardedDataParallel wraps the model, or use fully_shard",
                )

    def _follow_replaced(self, optimizer: Any) -> bool:
        """Move the state of parameters that were replaced, here or by Accelerate, to the new ones.

        Returns:
            Whether there were any.
        """
        found = False
        for group, index, name in _named(optimizer):
            parameter = group["params"][index]
            built = self._built[name]() if name in self._built else parameter
            if built is parameter:
                continue
            found = True
            self._built[name] = weakref.ref(parameter)
            if built is not None and built in optimizer.state:
                from hub.running.sharded.state import place_state

                state = optimizer.state.pop(built)
                own = place_state(parameter, self.members.get(parameter), state)
                if own is not None:
                    optimizer.state[parameter] = own
        return found


def _named(optimizer: Any) -> Iterator[tuple[dict[str, Any], int, str]]:
    """Yield the group, index and name of each parameter that has a name."""
    for group in optimizer.param_groups:
        names = group.get("param_names", ())[: len(group["params"])]
        yield from ((group, index, name) for index, name in enumerate(names))


def _replaced(optimizer: Any, model: Module) -> Places:
    """Return the places of parameters that sharding has replaced, with those that did."""
    present = present_parameters(model)
    found = [(group, index, present.get(name)) for group, index, name in _named(optimizer)]
    return [
        (group, index, now)
        for group, index, now in found
        if now is not None and now is not group["params"][index] and is_sharded(now)
    ]


def _replace(group: dict[str, Any], index: int, now: Tensor) -> None:
    before = group["params"][index]
    group["params"][index] = now
    # torch's distributed checkpoints make state by a step with gradients of zeros (torch 2.13,
    # `_init_optim_state`), which they put into the groups' parameters.
    if before.grad is not None and now.grad is None and not before.grad.any():
        now.grad = torch.zeros_like(now)


def _choose_implementation(optimizer: Any) -> None:
    """Choose torch's implementations for DTensors, as the plan does if the model is sharded before.

    torch 2.13 runs foreach operations on DTensors slowly. It runs neither `_fused_sgd_` nor
    `_fused_adagrad_` on them, and no fused operation on DTensors and plain tensors together.
    """
    has_fused = not isinstance(optimizer, torch.optim.SGD | torch.optim.Adagrad)
    for group in optimizer.param_groups:
        sharded = [is_sharded(parameter) for parameter in group["params"]]
        if "foreach" in group and any(sharded):
            group["foreach"] = False
            group["fused"] = bool(group.get("fused")) and has_fused and all(sharded)


def _nothing() -> None:
    return None
