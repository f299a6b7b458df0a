"""Compute on many small tensors of one shape as one tensor, as plugins' steps do.

An operation on a small tensor takes less time than the call. A stack of small tensors needs one
call, and on a CPU all threads share its work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_SMALL = {"cpu": 2**15 - 1}
"""The most elements of a tensor in a stack. From 2**15 on, torch (2.13, `internal::GRAIN_SIZE`)
splits one tensor among threads: it adds its elements in another order than a row of a stack, and
gains nothing from the stack."""
_SMALL_ELSEWHERE = 2**20
_MOST = {"cpu": 2**18}
"""The most elements of a stack, which is a copy: on a CPU it should stay in the cache."""
_MOST_ELSEWHERE = 2**24


def stacks(first: Sequence[Tensor], *others: Sequence[Tensor]) -> list[list[int]]:
    """Return the places of tensors, those to be stacked together, in the order of the first ones.

    Small tensors of the same shape, dtype and device are in one list, up to a size that suits the
    device. Each other tensor is in a list by itself, as is one that is not contiguous.

    Args:
        first: The tensors.
        others: Tensors of the same shapes, dtypes and devices, such as gradients. Their places too
            have one only if they are contiguous.
    """
    chosen: list[list[int]] = []
    latest: dict[object, list[int]] = {}
    for place, tensor in enumerate(first):
        if not is_stackable(tensor, *(other[place] for other in others)):
            chosen.append([place])
            continue
        size, device = tensor.numel(), tensor.device
        key = (tensor.shape, tensor.dtype, device)
        places = latest.get(key)
        if places is None or (len(places) + 1) * size > _MOST.get(device.type, _MOST_ELSEWHERE):
            places = latest[key] = []
            chosen.append(places)
        places.append(place)
    return chosen


def is_stackable(tensor: Tensor, *others: Tensor) -> bool:
    """Return whether a tensor is small enough for a stack, and it and others are contiguous."""
    if tensor.numel() > _SMALL.get(tensor.device.type, _SMALL_ELSEWHERE):
        return False
    return tensor.is_contiguous() and all(other.is_contiguous() for other in others)


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Return tensors of one shape as one tensor with one more dimension, the first.

    It is a copy of several tensors. A lone one is returned as it is.
    """
    return torch.stack(list(tensors)) if len(tensors) > 1 else tensors[0]


def rows(stack: Tensor, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the tensors in a stack that was made of others, or from a stack of these."""
    return stack.unbind() if len(tensors) > 1 else [stack]


def write_back(stack: Tensor, tensors: Sequence[Tensor]) -> None:
    """Copy a changed stack to the tensors that `stacked` made it of."""
    if len(tensors) > 1:
        torch._foreach_copy_(list(tensors), stack.unbind())


def scale(tensors: Sequence[Tensor], factors: Sequence[float]) -> None:
    """Multiply each tensor by its factor, rounding as `mul_` does.

    On a CPU `torch._foreach_mul_` (2.13) first rounds the factors to the dtype of the tensors: to a
    bf16 number near 1, which a weight decay of less than 0.2 % does not survive.
    """
    if len(tensors) == 1 or tensors[0].dtype in (torch.bfloat16, torch.float16):
        for tensor, factor in zip(tensors, factors, strict=True):
            tensor.mul_(factor)
    elif tensors[0].device.type == "cpu" and len(set(factors)) == 1:
        # torch (2.13) would make a tensor of the factor for each of them, in four times the time.
        torch._foreach_mul_(list(tensors), torch.tensor(factors[0], dtype=torch.float64))
    else:
        torch._foreach_mul_(list(tensors), list(factors))


def add(tensors: Sequence[Tensor], others: Sequence[Tensor], alpha: float) -> None:
    """Add to each tensor so many times another one."""
    if len(tensors) == 1:  # a call for lists takes longer
        tensors[0].add_(others[0], alpha=alpha)
    else:
        torch._foreach_add_(list(tensors), list(others), alpha=alpha)


def each(numbers: Tensor, stack: Tensor) -> Tensor:
    """Return one number for each tensor of a stack, in a shape that multiplies with the stack.

    The number of a lone tensor has no dimension, as `stacked` leaves it.
    """
    return numbers.view(-1, *(1 for _ in stack.shape[1:])) if numbers.ndim else numbers
