"""fp32 numbers as bf16 or fp16 weights and the bits that these lack, or rounded at random.

All functions take the fp32 numbers of several weights in one dimension, one weight after the other,
so that small weights cost a few operations together, not a few each. The other tensors are of the
weights' shapes. On a CPU as many are worked on at once as stay in its cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hub.running.buckets.random_bits import numbered, random_bits
from hub.running.buckets.sizes import bucket_slices

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from hub.running.buckets.space import Space

CHUNK = 1 << 20
"""How many elements are worked on at once, on a CPU."""
_FP16_FRACTION = 10
_FP16_LEAST = -24
"""fp16 numbers are multiples of 2**-24."""
_UNITS = 15
"""A spacing of fp16 numbers is 2**15 units: a bit is left, because half a spacing is a limit."""


@torch.no_grad()
def merge(
    numbers: Tensor,
    weights: Sequence[Tensor],
    bits: Sequence[Tensor] | None,
    space: Space | None = None,
) -> None:
    """Write the fp32 numbers that weights and bits are together; without bits, the weights.

    Args:
        numbers: fp32, in one dimension.
        weights: bf16 or fp16, all of one dtype.
        bits: int16.
        space: Has memory to work in; None: new memory.
    """
    for part in _parts(numbers, weights, bits):
        part.fill(part.numbers, part.of(weights))
        if bits is None:
            continue
        if weights[0].dtype == torch.bfloat16:
            # Converted first: torch (2.13) adds int16 to int32 four times as slowly on CPUs.
            low = _int32(part.numbers, space)
            part.fill(low, part.of(bits))
            part.numbers.view(torch.int32).add_(low)
        else:
            missing = torch.empty_like(part.numbers)
            part.fill(missing, part.of(bits))
            part.numbers.add_(torch.ldexp(missing, _unit(part.numbers)))


@torch.no_grad()
def split(numbers: Tensor, weights: Sequence[Tensor], bits: Sequence[Tensor]) -> None:
    """Write fp32 numbers as weights and bits.

    Args:
        numbers: fp32, in one dimension; overwritten.
        weights: bf16 or fp16, all of one dtype; overwritten.
        bits: int16; overwritten.
    """
    for part in _parts(numbers, weights, bits):
        if weights[0].dtype == torch.bfloat16:
            whole = part.numbers.view(torch.int32)
            part.write(part.of(bits), whole)  # the last 16 bits, as signed numbers
            whole.add_(1 << 15).bitwise_and_(-(1 << 16))
            part.write(part.of(weights), part.numbers)
        else:
            part.write(part.of(weights), part.numbers)
            nearest = torch.empty_like(part.numbers)
            part.fill(nearest, part.of(weights))
            # Beyond fp16, the weight is infinite.
            missing = part.numbers.sub_(nearest).nan_to_num_(0.0, 0.0, 0.0)
            part.write(part.of(bits), torch.ldexp(missing, -_unit(nearest)).round_())


@torch.no_grad()
def round_at_random(
    numbers: Tensor,
    weights: Sequence[Tensor],
    seeds: Sequence[int],
    firsts: Sequence[int | Tensor],
) -> None:
    """Round fp32 numbers up or down, so that they are right on average.

    Args:
        numbers: fp32, in one dimension; overwritten.
        weights: bf16 or fp16, all of one dtype; overwritten.
        seeds: Of each weight's random bits.
        firsts: The number of the first element of each in the whole parameter, or those of all.
    """
    for part in _parts(numbers, weights):
        noise = _noise(part, seeds, firsts)
        if weights[0].dtype == torch.bfloat16:
            part.numbers.view(torch.int32).add_(noise).bitwise_and_(-(1 << 16))
            part.write(part.of(weights), part.numbers)
        else:
            unit = _unit(part.numbers) + _UNITS
            scaled = torch.ldexp(part.numbers, -unit)
            scaled.add_(torch.ldexp(noise.float(), torch.tensor(-16, device="cpu")))
            part.write(part.of(weights), torch.ldexp(scaled.floor_(), unit))


@dataclass(frozen=True)
class _Part:
    """The numbers of some whole weights, or a part of those of one."""

    numbers: Tensor
    """A view, in one dimension."""
    sizes: Sequence[int]
    """Their numbers of elements."""
    place: slice
    """Which weights they are."""
    skipped: int | None
    """How many elements of the weight come before; None: it is not cut."""

    def of(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the same elements of other tensors."""
        own = tensors[self.place]
        if self.skipped is None:
            return own
        return [own[0].view(-1)[self.skipped : self.skipped + self.numbers.numel()]]

    def fill(self, flat: Tensor, tensors: Sequence[Tensor]) -> None:
        """Copy tensors into one dimension."""
        torch._foreach_copy_(shaped(flat, tensors), [*tensors])

    def write(self, tensors: Sequence[Tensor], flat: Tensor) -> None:
        """Copy what is in one dimension into tensors."""
        torch._foreach_copy_([*tensors], shaped(flat, tensors))


def shaped(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Return the parts of a tensor in one dimension that have these tensors' shapes."""
    if len(like) == 1:
        return [flat.view(like[0].shape)]
    pieces = flat.split_with_sizes([tensor.numel() for tensor in like])
    return [piece.view(tensor.shape) for piece, tensor in zip(pieces, like, strict=True)]


def _parts(
    numbers: Tensor, weights: Sequence[Tensor], bits: Sequence[Tensor] | None = None
) -> Iterator[_Part]:
    """Yield the numbers in parts of at most `CHUNK` on a CPU, all at once elsewhere.

    What is not in order in memory is not cut.
    """
    sizes = [weight.numel() for weight in weights]
    most = CHUNK if numbers.device.type == "cpu" else numbers.numel()
    done = 0
    for place in bucket_slices(sizes, most):
        own = sizes[place]
        whole = numbers[done : done + sum(own)]
        done += sum(own)
        in_order = all(column[place][0].is_contiguous() for column in (weights, bits or weights))
        if whole.numel() <= most or not in_order:
            yield _Part(whole, own, place, None)
            continue
        for start in range(0, whole.numel(), most):
            piece = whole[start : start + most]
            yield _Part(piece, [piece.numel()], place, start)


def _int32(like: Tensor, space: Space | None) -> Tensor:
    if space is None or like.device.type != "cpu":
        return torch.empty_like(like, dtype=torch.int32)
    return space.int32(like.numel())


def _unit(numbers: Tensor) -> Tensor:
    """Return the binary exponents of the units that fp16 numbers are split into."""
    _, exponent = torch.frexp(numbers)
    spacing = (exponent - 1 - _FP16_FRACTION).clamp_(min=_FP16_LEAST)
    return spacing.masked_fill_(numbers == 0, _FP16_LEAST) - _UNITS


def _noise(part: _Part, seeds: Sequence[int], firsts: Sequence[int | Tensor]) -> Tensor:
    """Return 16 random bits for each number, as int32 numbers from 0 to 65,535."""
    skipped = part.skipped or 0
    own = [
        first + skipped if isinstance(first, int) else first.reshape(-1)[skipped : skipped + size]
        for first, size in zip(firsts[part.place], part.sizes, strict=True)
    ]
    elements = numbered(part.sizes, own, part.numbers.device)
    return random_bits(elements, part.sizes, seeds[part.place])
