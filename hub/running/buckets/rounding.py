"""Step fp32 copies of bf16 and fp16 weights, and round them into the weights.

A bf16 weight near 1 has a neighbor 2**-8 below: smaller updates would be lost. There are two ways
to keep them:

- "split": the weight is the nearest bf16 number to an fp32 number, and the 16 bits between the two
  are state. Together they are the fp32 number exactly: ties round away from zero, so that the
  difference is a signed 16-bit number, in units of the last place of fp32. With fp16 the unit is a
  part of the spacing of fp16 numbers: exact for weights from 2**-14, and 2**-40 off at most for
  smaller ones.
- "stochastic": the copy is rounded up with the probability that makes it right on average, so small
  updates arrive now and then (https://arxiv.org/abs/2502.20566). The random bits are a hash of the
  parameter's name, the step and the element's number in the whole parameter: the same on every
  rank, on every device, and in a resumed run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from hub.measuring import local_part
from hub.running.buckets.random_bits import random_bits, seed_from
from hub.running.stand_ins import StandIn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from torch.optim import Optimizer

    from hub.running.buckets.space import Space

BITS = "rounding_bits"
"""The key of a parameter's state with the bits that its weights lack, as int16."""
COUNT = "rounding_step"
"""The key of a group that counts steps, for the random bits."""
ROUNDED = (torch.bfloat16, torch.float16)
"""The dtypes of weights that are stepped as fp32 copies."""
CHUNK = 1 << 20
"""How many elements are worked on at once, on a CPU: so many stay in its cache."""
_FP16_FRACTION = 10
_FP16_LEAST = -24
"""fp16 numbers are multiples of 2**-24."""


class Rounding:
    """Makes fp32 copies of weights, and rounds them into the weights.

    Args:
        keeps_bits: Whether the bits that are lost are kept as state; otherwise rounding is random.
        space: Where the copies are.
    """

    def __init__(self, *, keeps_bits: bool, space: Space) -> None:
        self._keeps_bits, self._space = keeps_bits, space

    def copied(self, item: StandIn, bits: Tensor | None) -> StandIn:
        """Return an fp32 copy of a weight, with its gradient, as the stand-in for it."""
        gradient = item.tensor.grad
        copy = self._space.take(local_part(item.tensor))
        merge(copy, local_part(item.tensor.detach()), bits, self._space)
        tensor = torch.nn.Parameter(like(copy, item.tensor))
        if gradient is not None:
            fp32 = self._space.take(local_part(gradient)).copy_(local_part(gradient))
            tensor.grad = like(fp32, item.tensor)
        return StandIn(item.group, item.index, item.parameter, tensor)

    def round(self, item: StandIn, copy: Tensor, bits: Tensor | None) -> Tensor | None:
        """Round an fp32 copy into its weight, and return the bits that are kept.

        Args:
            item: The weight and its place.
            copy: The copy, which is overwritten.
            bits: The bits that were kept so far, which are overwritten.
        """
        weight, copy = local_part(item.tensor.detach()), local_part(copy.detach())
        if self._keeps_bits:
            if bits is None:
                bits = like(torch.empty_like(weight, dtype=torch.int16), item.tensor)
            split(copy, weight, local_part(bits))
            return bits
        names = item.group.get("param_names")
        name = names[item.index] if names else f"{item.group.get('name', '')}.{item.index}"
        seed = seed_from(f"{name} {item.group.get(COUNT, 0)}")
        round_at_random(copy, weight, seed, _first_element(item))
        return None

    def count(self, optimizer: Optimizer) -> None:
        """Count a step, if random bits depend on it."""
        if not self._keeps_bits:
            for group in optimizer.param_groups:
                group[COUNT] = group.get(COUNT, 0) + 1


@torch.no_grad()
def fp32_copy(weights: Tensor, bits: Tensor | None) -> Tensor:
    """Return the fp32 numbers that weights and bits are together, in new memory."""
    local = local_part(weights.detach())
    copy = torch.empty_like(local, dtype=torch.float32)
    merge(copy, local, bits)
    return like(copy, weights)


@torch.no_grad()
def write(copy: Tensor, weights: Tensor, bits: Tensor | None) -> None:
    """Write an fp32 copy as the nearest weights, and as bits if these are kept."""
    local, source = local_part(weights.detach()), local_part(copy.detach())
    if bits is None:
        local.copy_(source)
    else:
        split(source, local, local_part(bits))


def prepare_state(optimizer: Optimizer, rounding: str) -> None:
    """Put the state that an optimizer has before its first step into the form of later ones.

    Some classes, such as Adagrad (torch 2.13), have state then: it becomes that of fp32 weights.
    torch's distributed checkpoints look for the keys that a saved group had.
    """
    if rounding == "stochastic":
        for group in optimizer.param_groups:
            group[COUNT] = 0
    for parameter, state in optimizer.state.items():
        if parameter.dtype in ROUNDED:
            for key, value in state.items():
                if isinstance(value, torch.Tensor) and value.dtype == parameter.dtype:
                    state[key] = value.float()


def take_bits(optimizer: Optimizer, parameter: Tensor) -> Tensor | None:
    """Take the bits of a weight out of its state, for as long as its class uses that."""
    state: Any = optimizer.state
    if parameter not in state:
        return None
    bits: Tensor | None = state[parameter].pop(BITS, None)
    if not state[parameter]:  # classes make state if there is none
        del state[parameter]
    return bits


def put_bits(optimizer: Optimizer, parameter: Tensor, bits: Tensor | None) -> None:
    """Put the bits of a weight into its state."""
    if bits is not None:
        optimizer.state.setdefault(parameter, {})[BITS] = bits


@torch.no_grad()
def merge(copy: Tensor, weight: Tensor, bits: Tensor | None, space: Space | None = None) -> None:
    """Write the fp32 numbers that weights and bits are together; without bits, the weights.

    Args:
        copy: fp32, of the weight's shape.
        weight: bf16 or fp16.
        bits: int16, of the same shape.
        space: Has memory to work in; None: new memory.
    """
    bits = None if bits is None else local_part(bits)
    if weight.dtype == torch.bfloat16:
        for to, high, low in _chunks(copy, weight, bits):
            to.copy_(high)
            if low is not None:
                # Converted first: torch (2.13) adds int16 to int32 four times as slowly on CPUs.
                to.view(torch.int32).add_(_as_int32(low, space))
        return
    copy.copy_(weight)
    if bits is not None:
        copy.add_(torch.ldexp(bits.float(), _unit(copy)))


@torch.no_grad()
def split(copy: Tensor, weight: Tensor, bits: Tensor) -> None:
    """Write fp32 numbers as weights and bits.

    Args:
        copy: fp32; overwritten.
        weight: bf16 or fp16, of the same shape.
        bits: int16, of the same shape; overwritten.
    """
    if weight.dtype == torch.bfloat16:
        for source, high, low in _chunks(copy, weight, bits):
            number = source.view(torch.int32)
            low.copy_(number)  # its last 16 bits, as a signed number
            number.add_(1 << 15).bitwise_and_(-(1 << 16))
            high.copy_(source)
        return
    weight.copy_(copy)
    nearest = weight.float()
    missing = copy.sub_(nearest).nan_to_num_(0.0, 0.0, 0.0)  # beyond fp16, the weight is infinite
    bits.copy_(torch.ldexp(missing, -_unit(nearest)).round_())


@torch.no_grad()
def round_at_random(copy: Tensor, weight: Tensor, seed: int, first: int | Tensor) -> None:
    """Round fp32 numbers up or down, so that they are right on average.

    Args:
        copy: fp32; overwritten.
        weight: bf16 or fp16, of the same shape.
        seed: For the random bits.
        first: The number of the first element in the whole parameter, or the numbers of all.
    """
    if weight.dtype == torch.bfloat16:
        done = 0
        for source, to in _chunks(copy, weight):
            numbers = first + done if isinstance(first, int) else first
            noise = random_bits(source.shape, seed, numbers, source.device)
            source.view(torch.int32).add_(noise).bitwise_and_(-(1 << 16))
            to.copy_(source)
            done += source.numel()
        return
    noise = random_bits(copy.shape, seed, first, copy.device)
    unit = _unit(copy) + _UNITS
    scaled = torch.ldexp(copy, -unit).add_(torch.ldexp(noise.float(), torch.tensor(-16)))
    weight.copy_(torch.ldexp(scaled.floor_(), unit))


def _as_int32(bits: Tensor, space: Space | None) -> Tensor:
    if space is None or bits.device.type != "cpu":
        return bits.to(torch.int32)
    return space.int32(bits.numel()).view(bits.shape).copy_(bits)


_UNITS = 15
"""A spacing of fp16 numbers is 2**15 units: a bit is left, because half a spacing is a limit."""


def _unit(numbers: Tensor) -> Tensor:
    """Return the binary exponents of the units that fp16 numbers are split into."""
    _, exponent = torch.frexp(numbers)
    spacing = (exponent - 1 - _FP16_FRACTION).clamp_(min=_FP16_LEAST)
    return spacing.masked_fill_(numbers == 0, _FP16_LEAST) - _UNITS


def _chunks(*tensors: Tensor | None) -> Iterator[list[Any]]:
    """Yield parts of tensors of the same shape, in the order of their elements."""
    given = [tensor for tensor in tensors if tensor is not None]
    in_order = all(tensor.is_contiguous() for tensor in given)
    if not in_order or given[0].device.type != "cpu" or given[0].numel() <= CHUNK:
        yield list(tensors)
        return
    flat = [None if tensor is None else tensor.view(-1) for tensor in tensors]
    for start in range(0, given[0].numel(), CHUNK):
        yield [None if tensor is None else tensor[start : start + CHUNK] for tensor in flat]


def _first_element(item: StandIn) -> int | Tensor:
    """Return the number of a tensor's first element in the whole parameter, or of all elements."""
    if not hasattr(item.tensor, "to_local"):
        return item.first
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    tensor: Any = item.tensor
    local, offsets = compute_local_shape_and_global_offset(
        tensor.shape, tensor.device_mesh, tensor.placements
    )
    strides = torch.empty(tensor.shape, device="meta").stride()
    if tuple(local[1:]) == tuple(tensor.shape[1:]):
        return int(offsets[0] * strides[0]) if local else 0
    numbers = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for size, offset, stride in zip(local, offsets, strides, strict=True):
        places = torch.arange(offset, offset + size, device=tensor.device) * stride
        numbers = numbers.unsqueeze(-1) + places
    return numbers


def like(local: Tensor, tensor: Any) -> Tensor:
    """Return a local tensor as a DTensor that is split like this one, if that is a DTensor.

    It may have more dimensions at the end.
    """
    if not hasattr(tensor, "to_local"):
        return local
    from torch.distributed.tensor import DTensor

    shape = torch.Size([*tensor.shape, *local.shape[tensor.ndim :]])
    return DTensor.from_local(
        local,
        tensor.device_mesh,
        tensor.placements,
        run_check=False,
        shape=shape,
        stride=torch.empty(shape, device="meta").stride(),
    )
