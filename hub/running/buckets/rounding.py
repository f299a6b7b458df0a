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

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from hub.measuring import local_part
from hub.running.buckets.arithmetic import merge, round_at_random, shaped, split
from hub.running.buckets.random_bits import seed_from

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor
    from torch.optim import Optimizer

    from hub.running.buckets.space import Space
    from hub.running.stand_ins import StandIn

BITS = "rounding_bits"
"""The key of a parameter's state with the bits that its weights lack, as int16."""
COUNT = "rounding_step"
"""The key of a group that counts steps, for the random bits."""
ROUNDED = (torch.bfloat16, torch.float16)
"""The dtypes of weights that are stepped as fp32 copies."""


@dataclass
class Batch:
    """Weights of one dtype and device, their bits, and fp32 copies of them."""

    items: list[StandIn]
    weights: list[Tensor]
    """The weights, or this rank's part of them."""
    bits: list[Tensor] | None
    """Those that the weights lack; None: they lack none, or it is not known."""
    numbers: Tensor
    """The copies in one dimension, one after the other."""
    copies: list[StandIn] = field(default_factory=list)
    """The stand-ins that are stepped: views of the numbers."""

    def collect(self) -> None:
        """Copy results to `numbers` that the class has put elsewhere, as `tensor.data`."""
        start = 0
        for copy, weight in zip(self.copies, self.weights, strict=True):
            result = local_part(copy.tensor.detach())
            own = self.numbers[start : start + weight.numel()]
            if result.data_ptr() != own.data_ptr():
                own.view(weight.shape).copy_(result)
            start += weight.numel()


class Rounding:
    """Makes fp32 copies of weights, and rounds them into the weights.

    Args:
        keeps_bits: Whether the bits that are lost are kept as state; otherwise rounding is random.
        space: Where the copies are.
    """

    def __init__(self, *, keeps_bits: bool, space: Space) -> None:
        self._keeps_bits, self._space = keeps_bits, space

    def copied(self, items: Sequence[StandIn], bits: Mapping[Tensor, Tensor | None]) -> list[Batch]:
        """Return fp32 copies of weights, with their gradients.

        Args:
            items: The weights and their places; all have gradients.
            bits: Those of each parameter, if there are some.
        """
        alike: dict[Any, list[StandIn]] = {}
        for item in items:
            kind = item.tensor.dtype, item.tensor.device, bits[item.parameter] is None
            alike.setdefault(kind, []).append(item)
        on_cpu = [local_part(item.tensor) for item in items if item.tensor.device.type == "cpu"]
        self._space.clear(2 * sum(weight.numel() for weight in on_cpu))
        return [self._batch(own, [bits[item.parameter] for item in own]) for own in alike.values()]

    def _batch(self, items: list[StandIn], bits: list[Any]) -> Batch:
        weights = [local_part(item.tensor.detach()) for item in items]
        given: list[Any] = [local_part(item.tensor.grad) for item in items]
        elements, device = sum(weight.numel() for weight in weights), weights[0].device
        batch = Batch(
            items,
            weights,
            bits=None if bits[0] is None else [local_part(own) for own in bits],
            numbers=self._space.take(elements, device),
        )
        merge(batch.numbers, weights, batch.bits, self._space)
        gradients = shaped(self._space.take(elements, device), weights)
        torch._foreach_copy_(gradients, given)
        copies = shaped(batch.numbers, weights)
        for item, copy, gradient in zip(items, copies, gradients, strict=True):
            tensor = torch.nn.Parameter(like(copy, item.tensor))
            tensor.grad = like(gradient, item.tensor)
            batch.copies.append(replace(item, tensor=tensor))
        return batch

    def round(self, batch: Batch) -> list[Tensor] | None:
        """Round the copies, which are overwritten, and return the bits of each if they are kept."""
        batch.collect()
        if not self._keeps_bits:
            seeds = [_seed(item) for item in batch.items]
            firsts = [_first_element(item) for item in batch.items]
            round_at_random(batch.numbers, batch.weights, seeds, firsts)
            return None
        bits = batch.bits or [torch.empty_like(w, dtype=torch.int16) for w in batch.weights]
        split(batch.numbers, batch.weights, bits)
        return [like(own, item.tensor) for own, item in zip(bits, batch.items, strict=True)]

    def count(self, optimizer: Optimizer) -> None:
        """Count a step, if random bits depend on it."""
        if not self._keeps_bits:
            for group in optimizer.param_groups:
                group[COUNT] = group.get(COUNT, 0) + 1


@torch.no_grad()
def fp32_copy(weights: Tensor, bits: Tensor | None) -> Tensor:
    """Return the fp32 numbers that weights and bits are together, in new memory."""
    local = local_part(weights.detach())
    numbers = torch.empty(local.numel(), dtype=torch.float32, device=local.device)
    merge(numbers, [local], None if bits is None else [local_part(bits)])
    return like(numbers.view(local.shape), weights)


@torch.no_grad()
def write(copy: Tensor, weights: Tensor, bits: Tensor | None) -> None:
    """Write an fp32 copy as the nearest weights, and as bits if these are kept."""
    local, source = local_part(weights.detach()), local_part(copy.detach())
    if bits is None:
        local.copy_(source)
    else:
        split(source.reshape(-1), [local], [local_part(bits)])


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


def _seed(item: StandIn) -> int:
    names = item.group.get("param_names")
    name = names[item.index] if names else f"{item.group.get('name', '')}.{item.index}"
    return seed_from(f"{name} {item.group.get(COUNT, 0)}")


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
