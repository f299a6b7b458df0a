"""Load state as of the tensors that are stepped, to where it is between steps.

torch (2.13, `_process_value_according_to_param_policy`) casts each tensor of state to the dtype of
its parameter and moves it to its device, and classes that load by themselves do likewise. With
`rounding` the state is that of fp32 weights, and with `offload` it belongs on the host; all of it
may not even fit on the device. So other tensors stand in for the parameters meanwhile.
"""

from __future__ import annotations

import weakref
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from hub.running.buckets.offload import on_host
from hub.running.buckets.rounding import BITS, ROUNDED

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from torch.optim import Optimizer

    from hub.running.buckets.offload import Host
    from hub.running.buckets.stepping import Stepping
    from hub.saving.plain import StateDict


def load_for_stand_ins(
    optimizer: Optimizer, stepping: Stepping, shape_of: Callable[[Tensor], torch.Size]
) -> None:
    """Make `load_state_dict` load the state of stand-ins.

    Call it after the hooks of the optimizer's factory, before which this one runs, and before those
    that need the real parameters first.

    Args:
        optimizer: The optimizer.
        stepping: How it is stepped.
        shape_of: Returns the shape in which a parameter is stepped.
    """
    present: list[Tensor] = []
    bits: dict[Any, Tensor] = {}

    def before(optimizer: Optimizer, state_dict: StateDict) -> StateDict:
        present[:] = _parameters(optimizer)
        _replace(optimizer, [_stand_in(p, stepping, shape_of(p)) for p in present])
        state = {
            number: dict(own) if isinstance(own, dict) else own
            for number, own in state_dict["state"].items()
        }
        numbers = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        bits.clear()
        for number, parameter in zip(numbers, present, strict=True):
            if BITS in state.get(number, {}):
                bits[parameter] = state[number].pop(BITS)
        return {**state_dict, "state": state}

    def after(optimizer: Optimizer) -> None:
        stand_ins = _parameters(optimizer)
        _replace(optimizer, present)
        group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        for stand_in, parameter in zip(stand_ins, present, strict=True):
            if stand_in in optimizer.state:
                state = optimizer.state.pop(stand_in)
                _place_counts(state, parameter, group_of[id(parameter)])
                optimizer.state[parameter] = state
            if parameter in bits:
                own = bits[parameter].detach().to(stand_in.device, copy=True)
                optimizer.state[parameter][BITS] = own
        present.clear()
        bits.clear()

    optimizer.register_load_state_dict_pre_hook(before, prepend=True)
    optimizer.register_load_state_dict_post_hook(after, prepend=True)


def keep_on_host(optimizer: Optimizer, host: Host) -> None:
    """Put the state on the host that an optimizer has now, and what loading leaves on the device.

    Some classes have state before the first step, and some make theirs anew of what they load.
    Call it after everything else that replaces `load_state_dict`.
    """
    host.store_all(optimizer)
    # Between a backward pass that updates and `step()`, state may be on its way.
    optimizer.register_state_dict_pre_hook(lambda _: host.end())
    optimizer.register_state_dict_post_hook(_saved_on_host)
    load, live = optimizer.load_state_dict, weakref.ref(optimizer)

    def load_state_dict(state_dict: StateDict) -> None:
        load(state_dict)
        inner = live()
        if inner is not None:
            host.store_all(inner)

    optimizer.load_state_dict = load_state_dict  # type: ignore[method-assign]


def _saved_on_host(_: Optimizer, state_dict: StateDict) -> StateDict:
    """Return a state dict whose tensors are on the host, of sharded parameters too."""
    state = {number: on_host(own) for number, own in state_dict["state"].items()}
    return {**state_dict, "state": state}


def _place_counts(state: dict[str, Any], parameter: Tensor, group: dict[str, Any]) -> None:
    """Move tensors without dimensions to where torch's policy has them for the real parameter."""
    on_device = group.get("fused") or group.get("capturable")
    for key, value in state.items():
        if isinstance(value, torch.Tensor) and not value.ndim and (key != "step" or on_device):
            state[key] = value.to(parameter.device)


def _stand_in(parameter: Tensor, stepping: Stepping, shape: torch.Size) -> Tensor:
    """Return a parameter of a shape that takes no memory."""
    is_rounded = stepping.rounding is not None and parameter.dtype in ROUNDED
    element = torch.empty(
        (),
        dtype=torch.float32 if is_rounded else parameter.dtype,
        device=parameter.device if stepping.host is None else "cpu",
    )
    return torch.nn.Parameter(element.expand(shape), parameter.requires_grad)


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [*chain.from_iterable(group["params"] for group in optimizer.param_groups)]


def _replace(optimizer: Optimizer, parameters: list[Tensor]) -> None:
    """Give an optimizer new groups that hold these parameters; the old ones stay as they are."""
    left = iter(parameters)
    optimizer.param_groups = [
        {**group, "params": [next(left) for _ in group["params"]]}
        for group in optimizer.param_groups
    ]
