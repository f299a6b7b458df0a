"""Random bits that depend on nothing but a seed and the number of an element."""

from __future__ import annotations

from hashlib import blake2b
from itertools import accumulate
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


def numbered(sizes: Sequence[int], firsts: Sequence[int | Tensor], device: torch.device) -> Tensor:
    """Return the numbers of elements in their parameters, one parameter after the other.

    Args:
        sizes: How many elements of each.
        firsts: The number of the first one of each; or those of all, in one dimension.
        device: Of the result.

    Returns:
        int32, in one dimension: the last 32 bits of each number.
    """
    numbers = torch.arange(sum(sizes), dtype=torch.int32, device=device)
    starts = accumulate(sizes[:-1], initial=0)
    known = [first if isinstance(first, int) else 0 for first in firsts]
    _add_to_each(
        numbers, sizes, [first - start for first, start in zip(known, starts, strict=True)]
    )
    for part, first in zip(numbers.split_with_sizes([*sizes]), firsts, strict=True):
        if not isinstance(first, int):
            part.copy_(first)
    return numbers


def random_bits(numbers: Tensor, sizes: Sequence[int], seeds: Sequence[int]) -> Tensor:
    """Return 16 random bits for each element, as int32 numbers from 0 to 65,535.

    Args:
        numbers: From `numbered`; overwritten, and the result, which is the same on each device.
        sizes: How many elements each parameter has.
        seeds: Of each parameter, below 2**63.
    """
    for shift in (0, 32):
        halves = [_signed(seed >> shift) for seed in seeds]
        if len(halves) == 1:
            numbers.bitwise_xor_(halves[0])
        else:
            numbers.bitwise_xor_(_add_to_each(torch.zeros_like(numbers), sizes, halves))
        _mix(numbers)
    return numbers.bitwise_and_(_LAST_16)


def _mix(numbers: Tensor) -> None:
    """Apply a hash of 32 bits in place: "lowbias32" (https://nullprogram.com/blog/2018/07/31)."""
    shifted = numbers >> 16
    numbers.bitwise_xor_(shifted.bitwise_and_(_LAST_16)).mul_(_FACTORS[0])
    torch.bitwise_right_shift(numbers, 15, out=shifted)
    numbers.bitwise_xor_(shifted.bitwise_and_(_FIRST_17)).mul_(_FACTORS[1])
    torch.bitwise_right_shift(numbers, 16, out=shifted)
    numbers.bitwise_xor_(shifted.bitwise_and_(_LAST_16))


def _add_to_each(numbers: Tensor, sizes: Sequence[int], values: Sequence[int]) -> Tensor:
    """Add a value to all elements of each parameter, in place."""
    parts = numbers.split_with_sizes([*sizes])
    torch._foreach_add_(parts, [_signed(value) for value in values])
    return numbers


def _signed(number: int) -> int:
    """Return the last 32 bits of a number, as int32 has them."""
    return ((number + (1 << 31)) & ((1 << 32) - 1)) - (1 << 31)
