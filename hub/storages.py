"""The plain tensors that a piece of state is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


def plain_tensors(value: Any) -> Iterator[Tensor]:
    """Yield all tensors in a value that have memory of their own.

    Looked into are mappings, lists, tuples, objects, and tensors that are made of others: quantized
    ones, and a DTensor, of which it is this rank's part.
    """
    items: Any
    if hasattr(value, "to_local"):
        items = [value.to_local()]
    elif hasattr(value, "__tensor_flatten__"):
        items = [getattr(value, name) for name in value.__tensor_flatten__()[0]]
    elif isinstance(value, torch.Tensor):
        yield value
        return
    elif isinstance(value, Mapping):
        items = list(value.values())
    elif isinstance(value, list | tuple):
        items = value
    else:
        items = list(vars(value).values()) if hasattr(value, "__dict__") else []
    for item in items:
        yield from plain_tensors(item)
