"""An update that torch.compile fuses, once for tensors of all shapes."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from hub.measuring import local_part
from hub.updates.stacking import stacked, stacks, write_back

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


class Kernel:
    """An elementwise update, in registers instead of one pass over memory for each operation.

    Tensors are passed in one dimension of any length, and all numbers as tensors, so that neither
    another shape nor another learning rate compiles again. fp32 results differ from the eager ones
    by rounding, and bf16 ones are computed in fp32 and rounded once.

    Args:
        update: Takes tensors of one dimension, then numbers as fp64 tensors without one, then
            settings by name. Changes the first tensors in place.
        changes: How many of them.
    """

    def __init__(self, update: Callable[..., None], changes: int) -> None:
        self._update = update
        self._changes = changes

    def __call__(
        self, lists: Sequence[Sequence[Tensor]], numbers: Sequence[float], **settings: Any
    ) -> None:
        """Update parameters, small ones of a shape together.

        Args:
            lists: For each tensor that the update takes, those of all parameters.
            numbers: What it takes after them.
            settings: A value that was not seen before compiles again.
        """
        update = _compiled(self._update, os.environ.get("TORCHDYNAMO_DISABLE"))
        scalars = [torch.tensor(number, dtype=torch.float64, device="cpu") for number in numbers]
        local = [[local_part(tensor).detach() for tensor in each] for each in lists]
        for chosen in stacks(*local):
            alike = [[each[place] for place in chosen] for each in local]
            together = [stacked(tensors) for tensors in alike]
            flat = [_flat(stack) for stack in together]
            update(*flat, *scalars, **settings)
            changed = zip(alike[: self._changes], together, flat, strict=False)
            for tensors, stack, result in changed:
                write_back(stack, tensors)
                if not stack.is_contiguous():  # a lone tensor
                    stack.copy_(result.view(stack.shape))


def _flat(tensor: Tensor) -> Tensor:
    """Return a tensor's elements in one dimension, as a view if it is contiguous."""
    flat = tensor.reshape(-1)
    torch._dynamo.mark_dynamic(flat, 0)  # noqa: SLF001 - has no other name
    return flat


@cache
def _compiled(update: Callable[..., None], _disabled: str | None) -> Callable[..., None]:
    """Return the compiled update; torch reads TORCHDYNAMO_DISABLE when it wraps a function."""
    return torch.compile(update, fullgraph=True, dynamic=False)
