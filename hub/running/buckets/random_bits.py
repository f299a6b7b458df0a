"""Random bits that depend on nothing but a seed and the number of an element."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_LAST_16 = 0xFFFF
_FIRST_17 = 0x1FFFF
_FACTORS = 0x7FEB352D, 0x846CA68B - (1 << 32)


def seed_from(text: str) -> int:
    """Return a number below 2**63, the same for a text in every process.

    Random numbers drawn from it are the same on every rank and in a resumed run.
    """
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def random_bits(
    shape: Sequence[int], seed: int, first: int | Tensor, device: torch.device
) -> Tensor:
    """Return 16 random bits for each element, as int32 numbers from 0 to 65,535.

    Args:
        shape: Of the result.
        seed: Below 2**63.
        first: The number of the first element; or the numbers of all, of this shape.
        device: Of the result, which is the same on each.
    """
    if isinstance(first, int):
        numbers = torch.arange(torch.Size(shape).numel(), dtype=torch.int32, device=device)
        numbers = numbers.add_(_signed(first)).view(shape)
    else:
        numbers = first.to(torch.int32)
    for half in (seed, seed >> 32):
        _mix(numbers.bitwise_xor_(_signed(half)))
    return numbers.bitwise_and_(_LAST_16)


def _mix(numbers: Tensor) -> None:
    """Apply a hash of 32 bits in place: "lowbias32" (https://nullprogram.com/blog/2018/07/31)."""
    shifted = numbers >> 16
    numbers.bitwise_xor_(shifted.bitwise_and_(_LAST_16)).mul_(_FACTORS[0])
    torch.bitwise_right_shift(numbers, 15, out=shifted)
    numbers.bitwise_xor_(shifted.bitwise_and_(_FIRST_17)).mul_(_FACTORS[1])
    torch.bitwise_right_shift(numbers, 16, out=shifted)
    numbers.bitwise_xor_(shifted.bitwise_and_(_LAST_16))


def _signed(number: int) -> int:
    """Return the last 32 bits of a number, as int32 has them."""
    return ((number + (1 << 31)) & ((1 << 32) - 1)) - (1 << 31)
