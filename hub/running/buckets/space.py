"""Memory for the copies of one bucket, used again by the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


class Space:
    """Hands out uninitialized fp32 tensors.

    On a CPU they are parts of memory that is kept, because fetching it from the system anew takes
    longer than a step needs it. Other devices have an allocator that keeps it (torch 2.13).
    """

    def __init__(self) -> None:
        self._whole = torch.empty(0, dtype=torch.float32, device="cpu")
        self._taken = 0
        self._numbers = torch.empty(0, dtype=torch.int32, device="cpu")

    def clear(self, elements: int) -> None:
        """Take everything back, and have memory of a CPU for so many elements."""
        self._taken = 0
        if elements > self._whole.numel():
            self._whole = self._whole.new_empty(elements)

    def take(self, elements: int, device: torch.device) -> Tensor:
        """Return a tensor in one dimension."""
        if device.type != "cpu":
            return torch.empty(elements, dtype=torch.float32, device=device)
        start, self._taken = self._taken, self._taken + elements
        return self._whole[start : self._taken]

    def int32(self, elements: int) -> Tensor:
        """Return memory of a CPU for so many int32 numbers, apart from the copies.

        Memory that is taken and given back for each chunk of a weight makes the system take back
        that of the optimizer's step too.
        """
        if elements > self._numbers.numel():
            self._numbers = self._numbers.new_empty(elements)
        return self._numbers[:elements]
