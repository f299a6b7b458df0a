"""Keep the state of an optimizer in the host's memory, except while it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_map

if TYPE_CHECKING:
    from collections.abc import Mapping


def on_device(state: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Return the state of a parameter with all tensors that have dimensions on a device."""

    def moved(value: Any) -> Any:
        has_dimensions = isinstance(value, torch.Tensor) and value.ndim > 0
        return value.to(device) if has_dimensions else value

    return tree_map(moved, dict(state))  # type: ignore[no-any-return]
