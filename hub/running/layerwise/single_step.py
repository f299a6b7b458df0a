"""Run an optimizer's own step for one of its parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from hub.running.steps import only

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.optim import Optimizer

    from hub.running.layerwise.settings import Slot

    Group = dict[str, Any]

_ABSENT = object()


class SingleStep:
    """Calls the step while `param_groups` holds a single parameter.

    The group is the real one, so it has the learning rate that a scheduler last set, and the state
    is in its usual place. What a step changes in a group is restored before each parameter's
    update, so that all updates start from the same count; the result of the last update stays.

    Args:
        step: The `step` of the optimizer's class, without hooks.
        counters: The keys of a group that a step changes.
    """

    def __init__(self, step: Callable[[Optimizer], object], counters: frozenset[str]) -> None:
        self._step = step
        self._counters = counters
        self._began: dict[int, Group] = {}
        """The counters of each group at the beginning of the step, by the group's identity."""

    def begin(self) -> None:
        """Start a new step."""
        self._began.clear()

    def update(self, optimizer: Optimizer, slot: Slot) -> None:
        """Update one parameter."""
        group, index, groups = slot.group, slot.index, optimizer.param_groups
        if self._counters:
            self._rewind(group)
        parameters, names = group["params"], group.get("param_names")
        try:
            group["params"] = [slot.parameter]
            if names is not None:
                group["param_names"] = [names[index]]
            optimizer.param_groups = [group]
            self._step(optimizer)
        finally:
            optimizer.param_groups = groups
            group["params"] = parameters
            if names is not None:
                group["param_names"] = names

    def count_idle_groups(self, optimizer: Optimizer) -> None:
        """Count the step in groups without gradients too, as the eager form does."""
        idle = [group for group in optimizer.param_groups if id(group) not in self._began]
        if self._counters and idle:
            with only(optimizer, idle):
                self._step(optimizer)

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


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value
