"""Keep the dtypes of state tensors when they are loaded."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from hub.saving.plain import StateDict


def keep_state_dtypes(optimizer: torch.optim.Optimizer) -> None:
    """Load state tensors in the dtype they were saved in.

    `Optimizer.load_state_dict` (torch 2.13, `_process_value_according_to_param_policy`) casts them
    to the parameter's dtype, which rounds the fp32 moments of bf16 parameters. The hook of
    `hub.repairs.translate_state` receives the exact tensors.
    """
    pending: list[StateDict] = []

    def before(_: torch.optim.Optimizer, state_dict: StateDict) -> None:
        pending[:] = [state_dict]

    def after(optimizer: torch.optim.Optimizer) -> None:
        saved = pending.pop()
        numbers = chain.from_iterable(group["params"] for group in saved["param_groups"])
        parameters = chain.from_iterable(group["params"] for group in optimizer.param_groups)
        for number, parameter in zip(numbers, parameters, strict=True):
            loaded = optimizer.state[parameter] if number in saved["state"] else {}
            for key, value in saved["state"].get(number, {}).items():
                loaded[key] = _where(loaded.get(key), value, parameter.device)

    optimizer.register_load_state_dict_pre_hook(before)
    optimizer.register_load_state_dict_post_hook(after, prepend=True)


def _where(loaded: Any, value: Any, device: torch.device) -> Any:
    """Copy a saved value to where its loaded form is, or else to a device, in its own dtype."""
    if isinstance(value, torch.Tensor):
        place = loaded.device if isinstance(loaded, torch.Tensor) else device
        return value.detach().to(place, copy=True)
    if isinstance(value, list):
        found = loaded if isinstance(loaded, list) else [None] * len(value)
        return [_where(*pair, device) for pair in zip(found, value, strict=True)]
    return value
