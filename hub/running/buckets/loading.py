"""Load state to where it is between steps, and never all of it onto the device."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from hub.saving.plain import StateDict


def load_on_host(optimizer: Optimizer) -> None:
    """Make `load_state_dict` leave the state on the host.

    torch (2.13, `_process_value_according_to_param_policy`) moves each tensor to the device of its
    parameter, and classes with a method for it do likewise. So parameters on the CPU stand in for
    the real ones while they do.

    Call it after the other hooks before a load; this one is the last before the class's own code,
    and the first after it.
    """
    present: list[Tensor] = []

    def before(optimizer: Optimizer, state_dict: StateDict) -> StateDict:
        present[:] = _parameters(optimizer)
        _replace(optimizer, [_on_host(parameter) for parameter in present])
        return state_dict

    def after(optimizer: Optimizer) -> None:
        stand_ins = _parameters(optimizer)
        _replace(optimizer, present)
        group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        for stand_in, parameter in zip(stand_ins, present, strict=True):
            if stand_in in optimizer.state:
                state = optimizer.state.pop(stand_in)
                optimizer.state[parameter] = _with_counts(state, parameter, group_of[id(parameter)])
        present.clear()

    optimizer.register_load_state_dict_pre_hook(before)
    optimizer.register_load_state_dict_post_hook(after, prepend=True)


def _with_counts(state: Any, parameter: Tensor, group: dict[str, Any]) -> Any:
    """Return state with tensors that have no dimensions where torch's policy puts them."""
    on_device = group.get("fused") or group.get("capturable")
    for key, value in state.items():
        if isinstance(value, torch.Tensor) and not value.ndim and (key != "step" or on_device):
            state[key] = value.to(parameter.device)
    return state


def _on_host(parameter: Tensor) -> Tensor:
    """Return a parameter of the same dtype and shape on the CPU, which takes no memory."""
    empty = torch.empty((), dtype=parameter.dtype, device="cpu").expand(parameter.shape)
    return torch.nn.Parameter(empty, requires_grad=parameter.requires_grad)


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [*chain.from_iterable(group["params"] for group in optimizer.param_groups)]


def _replace(optimizer: Optimizer, parameters: list[Tensor]) -> None:
    """Give an optimizer new groups that hold these parameters; the old ones stay as they are."""
    left = iter(parameters)
    optimizer.param_groups = [
        {**group, "params": [next(left) for _ in group["params"]]}
        for group in optimizer.param_groups
    ]
