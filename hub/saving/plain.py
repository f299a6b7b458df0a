"""The types that state dicts consist of."""

from __future__ import annotations

from typing import Any

import torch

State = dict[str, Any]
"""The state of one parameter, as in `optimizer.state[parameter]`."""
Group = dict[str, Any]
"""One of `optimizer.param_groups`; its `params` are parameters or, in a state dict, numbers."""
StateDict = dict[str, Any]

KEY = "hub"
"""Where a state dict keeps its `Record`; torch ignores it."""


def is_plain(value: Any) -> bool:
    """Return whether `torch.load(weights_only=True)` can read a value."""
    if isinstance(value, tuple | list):
        return all(is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(is_plain(item) for item in value.values())
    return value is None or isinstance(value, bool | int | float | str | torch.Tensor)


def tuples(value: Any) -> Any:
    """Return a value with lists as tuples, to compare values that went through JSON or a file."""
    return tuple(tuples(item) for item in value) if isinstance(value, list | tuple) else value
