"""The optimizer whose groups, state and steps are those of several others."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch

from hub.errors import UnsupportedError
from hub.groups.modules import names_by_id
from hub.running.layerwise.clipping import share_previous_norm
from hub.running.mixed.state import MemberStates, join, load_into
from hub.running.steps import named_group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch.nn import Module
    from torch.optim import Optimizer

    from hub.saving.plain import StateDict

    Route = Callable[[Module, list[tuple[str, Any]]], Iterable[str]]


class MixedOptimizer(torch.optim.Optimizer):
    """Steps several optimizers, each over parameters of its own, as one.

    `param_groups` has the groups of all members, the very same dictionaries, so that schedules,
    clipping and warm-up reach each of them. A group that is added later goes to the members that
    the plan's rules choose, and to the end of the list.
    """

    def __init__(self, members: Mapping[str, Optimizer], model: Module, route: Route) -> None:
        """Join optimizers whose parameters do not overlap.

        Args:
            members: By label.
            model: Held weakly.
            route: Returns the label of the member for each of some named parameters of a model.
        """
        self.hub_members = tuple(members.values())
        self._labels = tuple(members)
        self._model: Callable[[], Module | None] = weakref.ref(model)
        self._route = route
        self._is_ready = False
        groups = [group for member in self.hub_members for group in member.param_groups]
        super().__init__(groups, _common_defaults(self.hub_members))
        self._is_ready = True
        self.state = MemberStates(self.hub_members)  # type: ignore[assignment]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step every member.

        Args:
            closure: Called once, first.

        Returns:
            What the closure returns, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for member in self.hub_members:
            member.step()
        share_previous_norm([member.param_groups[0] for member in self.hub_members])
        return loss

    def train(self) -> None:
        """Put the training weights in place, in members that have others for evaluation."""
        _call_each(self.hub_members, "train")

    def eval(self) -> None:
        """Put the evaluation weights in place, likewise."""
        _call_each(self.hub_members, "eval")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Free the gradients of all members, as each of them does."""
        for member in self.hub_members:
            member.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters to the members that the plan's rules choose, a group for each.

        Raises:
            UnsupportedError: No member trains such a parameter, or the model no longer exists;
                nothing has been added.
        """
        if not self._is_ready:
            super().add_param_group(param_group)
            return
        before = [(one, list(one.param_groups)) for one in (self, *self.hub_members)]
        try:
            for member, group in self._routed(param_group):
                member.add_param_group(group)
                self.param_groups.append(member.param_groups[-1])
        except Exception:
            for one, groups in before:
                one.param_groups[:] = groups
                if hasattr(one, "hub_engine"):
                    one.hub_engine.place_hooks()
            raise

    def state_dict(self) -> StateDict:
        """Return the state of all members, in one list of groups, with a record of each."""
        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        joined = join(self.hub_members, self.param_groups)
        for after in self._optimizer_state_dict_post_hooks.values():
            changed = after(self, joined)
            joined = joined if changed is None else changed
        return joined

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Load the state of each member, or leave all of them as they are.

        Raises:
            CheckpointError: It does not fit: see `hub.saving`.
        """
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            changed = before(self, state_dict)
            state_dict = state_dict if changed is None else changed
        self.param_groups[:] = load_into(self.hub_members, self.param_groups, state_dict)
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        own = ("hub_members", "_labels", "_is_ready")
        return {**state, **{key: getattr(self, key) for key in own}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._model = lambda: None  # that of the original is not the copy's
        self.state = MemberStates(self.hub_members)  # type: ignore[assignment]

    def _routed(self, param_group: dict[str, Any]) -> list[tuple[Optimizer, dict[str, Any]]]:
        """Return the members that train the parameters of a group, each with its part."""
        model = self._model()
        if model is None:
            raise UnsupportedError(
                "without its model, nothing says which of the optimizers trains new parameters",
                where="add_param_group",
                fix="call hub.build with the model, and keep it, or build again with all of them",
            )
        group = named_group(param_group, names_by_id(model), len(self.param_groups))
        named = list(zip(group["param_names"], group["params"], strict=True))
        labels = list(self._route(model, named))
        routed = []
        for label in dict.fromkeys(labels):
            if label not in self._labels:
                name = next(n for (n, _), own in zip(named, labels, strict=True) if own == label)
                raise UnsupportedError(
                    f"none of the optimizers trains parameters such as {name}",
                    where="add_param_group",
                    fix="build again, with this parameter trainable",
                )
            chosen = [pair for pair, own in zip(named, labels, strict=True) if own == label]
            part = {"params": [p for _, p in chosen], "param_names": [n for n, _ in chosen]}
            routed.append((self.hub_members[self._labels.index(label)], {**group, **part}))
        return routed


def _call_each(members: Iterable[Optimizer], method: str) -> None:
    for member in members:
        if hasattr(member, method):
            getattr(member, method)()


def _common_defaults(members: Iterable[Optimizer]) -> dict[str, Any]:
    """Return the defaults of the first member that all have, as some schedules look for them."""
    first, *others = (member.defaults for member in members)
    return {key: value for key, value in first.items() if all(key in other for other in others)}
