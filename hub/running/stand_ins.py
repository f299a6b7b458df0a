"""Run an optimizer's own step for some of its parameters, or for tensors in their place.

The only place where hub stands between an optimizer and its parameters. Layerwise forms step one
parameter at a time; sharded parameters are stepped as tensors that stand in for them.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from hub.running.steps import only

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor
    from torch.optim import Optimizer

    Group = dict[str, Any]

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class StandIn:
    """A parameter, its place in the optimizer, and the tensor to step instead of it."""

    group: dict[str, Any]
    index: int
    """The parameter's index in the group."""
    parameter: Tensor
    tensor: Tensor
    """Has a gradient; may be the parameter itself."""
    first: int = 0
    """The number of the tensor's first element in the whole parameter."""


class StandInStep:
    """Calls the step while `param_groups` holds only some parameters, or their stand-ins.

    The groups are the real ones, so they have the learning rates that a scheduler last set. Each
    stand-in has its parameter's state for as long as it steps. What a step changes in a group is
    restored before each further call for this group, so that all calls start from the same count;
    the result of the last one stays.

    Args:
        step: The `step` of the optimizer's class, without hooks.
        counters: The keys of a group that a step changes.
        copies: The dtype that parameters of other dtypes are stepped in, if copies are stepped.
    """

    def __init__(
        self,
        step: Callable[[Optimizer], object],
        counters: frozenset[str],
        copies: Mapping[torch.dtype, torch.dtype] | None = None,
    ) -> None:
        self._step = step
        self._counters = counters
        self._copies = copies or {}
        self._began: dict[int, Group] = {}
        """The counters of each group at the beginning of the step, by the group's identity."""

    def begin(self) -> None:
        """Start a new step."""
        self._began.clear()

    def run(self, optimizer: Optimizer, items: Sequence[StandIn]) -> None:
        """Step these parameters; those of one group in its order."""
        if len(items) == 1 and items[0].tensor is items[0].parameter:
            self.run_alone(optimizer, items[0])
            return
        chosen: dict[int, list[StandIn]] = {}
        for item in items:
            chosen.setdefault(id(item.group), []).append(item)
        groups = [group for group in optimizer.param_groups if id(group) in chosen]
        if self._counters:
            for group in groups:
                self._rewind(group)
        with (
            _states_lent(optimizer, items),
            only(optimizer, groups),
            _holding([(group, chosen[id(group)]) for group in groups]),
        ):
            self._step(optimizer)

    def run_alone(self, optimizer: Optimizer, item: StandIn) -> None:
        """Step a parameter that is its own stand-in: as `run`, but faster than a small update."""
        group, groups = item.group, optimizer.param_groups
        parameters, names = group["params"], group.get("param_names")
        if self._counters:
            self._rewind(group)
        try:
            optimizer.param_groups = [group]
            group["params"] = [item.tensor]
            if names is not None:
                group["param_names"] = [names[item.index]]
            self._step(optimizer)
        finally:
            optimizer.param_groups = groups
            group["params"] = parameters
            if names is not None:
                group["param_names"] = names

    def rewind(self, optimizer: Optimizer) -> None:
        """Set the counters of all groups back to the beginning of the step."""
        for group in optimizer.param_groups:
            if id(group) in self._began:
                self._rewind(group)

    def end(self, optimizer: Optimizer) -> None:
        """End a step: count it in groups without gradients too, as the plain step does."""
        idle = [group for group in optimizer.param_groups if id(group) not in self._began]
        if self._counters and idle:
            # Their parameters may have gradients that another rank has used.
            self.run(optimizer, [self._nothing_of(group) for group in idle])

    def _nothing_of(self, group: Group) -> StandIn:
        """Return an empty parameter without a gradient, like those that are stepped of a group."""
        first = next(iter(group["params"]), torch.empty(0))
        dtype = self._copies.get(first.dtype, first.dtype)
        empty = torch.nn.Parameter(torch.empty(0, dtype=dtype, device=first.device))
        return StandIn(group, 0, empty, empty)

    def _rewind(self, group: Group) -> None:
        began = self._began.get(id(group))
        if began is None:
            values = {key: group.get(key, _ABSENT) for key in self._counters}
            self._began[id(group)] = {key: _copied(value) for key, value in values.items()}
            return
        for key, value in began.items():
            if value is _ABSENT:
                group.pop(key, None)
            else:
                group[key] = _copied(value)


@contextmanager
def _holding(chosen: Sequence[tuple[Group, Sequence[StandIn]]]) -> Iterator[None]:
    """Temporarily put stand-ins into their groups, in place of all parameters."""
    kept = [(group, group["params"], group.get("param_names")) for group, _ in chosen]
    try:
        for group, items in chosen:
            names = group.get("param_names")
            group["params"] = [item.tensor for item in items]
            if names is not None:
                group["param_names"] = [names[item.index] for item in items]
        yield
    finally:
        for group, parameters, names in kept:
            group["params"] = parameters
            if names is not None:
                group["param_names"] = names


@contextmanager
def _states_lent(optimizer: Optimizer, items: Sequence[StandIn]) -> Iterator[None]:
    """Temporarily move the state of each parameter to its stand-in."""
    state, lent = optimizer.state, [item for item in items if item.tensor is not item.parameter]
    for item in lent:
        if item.parameter in state:
            state[item.tensor] = state.pop(item.parameter)
    try:
        yield
    finally:
        for item in lent:
            if item.tensor in state:
                state[item.parameter] = state.pop(item.tensor)


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value
