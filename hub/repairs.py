"""Fixes for upstream classes, to be called by plugins' factories."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from hub.running.buckets.random_bits import seed_from
from hub.running.steps import closure_of
from hub.saving.dtypes import keep_state_dtypes
from hub.saving.plain import Group, State, StateDict

if TYPE_CHECKING:
    from hub.running.sharded.late import LateSharding

__all__ = [
    "HookedLoading",
    "enable_grad_in_closures",
    "keep_state_dtypes",
    "row_major",
    "seed_from",
    "stepped_shape",
    "translate_state",
    "with_strides",
]


def enable_grad_in_closures(optimizer: torch.optim.Optimizer) -> None:
    """Enable gradients in closures, for classes whose `step` calls them with gradients disabled.

    galore_torch 1.0 and apollo_torch 1.0.3 are such classes.
    """
    optimizer.register_step_pre_hook(_with_grad)


def _with_grad(
    optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    closure = closure_of(args, kwargs)
    if closure is None:
        return None
    return (optimizer, torch.enable_grad()(closure)), {}


class HookedLoading:
    """Mixin for classes whose `load_state_dict` never calls torch's load hooks.

    bitsandbytes 0.50.2 overrides the whole method (`optim/optimizer.py`, `Optimizer8bit`).
    List the mixin before the upstream class.
    """

    def load_state_dict(self: Any, state_dict: StateDict, *args: Any, **kwargs: Any) -> None:
        """Load as the upstream class does, between torch's pre- and post-load hooks."""
        state_dict = state_dict.copy()
        for pre_hook in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = pre_hook(self, state_dict) or state_dict
        super().load_state_dict(state_dict, *args, **kwargs)  # type: ignore[misc]
        for post_hook in self._optimizer_load_state_dict_post_hooks.values():
            post_hook(self)


def translate_state(
    optimizer: torch.optim.Optimizer,
    save: Callable[[State, Group], State],
    load: Callable[[State, Group], State],
) -> None:
    """Save each parameter's state in a different form from the live one.

    `hub.saving` lists when this happens among the other hooks.

    Args:
        optimizer: The optimizer to attach to.
        save: Returns tensors and plain data for one live state; must not change its argument.
        load: Returns the live state for one loaded state, whose tensors torch has already cast and
            moved to the parameter's device. It must return live states unchanged, because
            checkpoints of the upstream class may contain them.
    """

    def saved(_: torch.optim.Optimizer, state_dict: StateDict) -> StateDict:
        group_of = {
            number: group for group in state_dict["param_groups"] for number in group["params"]
        }
        state = {
            number: save(value, group_of[number]) if value and number in group_of else value
            for number, value in state_dict["state"].items()
        }
        return {**state_dict, "state": state}

    def loaded(optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if optimizer.state.get(parameter):  # empty where another rank has it
                    optimizer.state[parameter] = load(optimizer.state[parameter], group)

    optimizer.register_state_dict_post_hook(saved)
    optimizer.register_load_state_dict_post_hook(loaded)


def stepped_shape(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> torch.Size:
    """Return the shape in which this rank steps a parameter: sharded ones may be stepped by rows.

    What load hooks get is the state of that shape.
    """
    late: LateSharding | None = getattr(optimizer, "hub_late_sharding", None)
    return parameter.shape if late is None else late.members.stepped_shape(parameter)


def row_major(matrix: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """Return a matrix in row-major order, and whether it was column-major.

    torch's `broadcast` (2.13, called by `set_optimizer_state_dict` with `broadcast_from_rank0`)
    sends memory as it is, and the receiving tensor is row-major.
    """
    return matrix.contiguous(), matrix.stride(-2) < matrix.stride(-1)


def with_strides(matrix: torch.Tensor, *, by_columns: bool) -> torch.Tensor:
    """Return a matrix in the order that `row_major` found, because products round differently."""
    return matrix.mT.contiguous().mT if by_columns else matrix
