"""Compute on many small tensors of one shape as one tensor, as plugins' steps do.

An operation on a small tensor takes less time than the call. A stack of small tensors needs one
call, and on a CPU all threads share its work.
"""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

_HALF = (torch.bfloat16, torch.float16)
_SMALL = {"cpu": 2**15 - 1}
"""The most elements of a tensor in a stack. From 2**15 on, torch (2.13, `internal::GRAIN_SIZE`)
splits one tensor among threads: it adds its elements in another order than a row of a stack, and
gains nothing from the stack."""
_SMALL_ELSEWHERE = 2**20
_MOST = {"cpu": 2**18}
"""The most elements of a stack, which is a copy: on a CPU it should stay in the cache."""
_MOST_ELSEWHERE = 2**24


def stacks(
    first: Sequence[Tensor], *others: Sequence[Tensor], kinds: Iterable[object] = repeat(None)
) -> list[list[int]]:
    """Return the places of tensors, those to be stacked together, in the order of the first ones.

    Small tensors of the same shape, dtype, device and kind are in one list, up to a size that suits
    the device. Each other tensor is in a list by itself, as is one that is not contiguous.

    Args:
        first: The tensors.
        others: Tensors of the same shapes, dtypes and devices, such as gradients. Their places too
            have one only if they are contiguous.
        kinds: Of each.
    """
    lists = (first, *others)
    loose = {i for each in lists for i, tensor in enumerate(each) if not tensor.is_contiguous()}
    chosen = [[place] for place in loose]
    alike: dict[tuple[torch.Size, torch.dtype, torch.device, object], list[int]] = {}
    for place, (tensor, kind) in enumerate(zip(first, kinds, strict=False)):
        if place not in loose:
            key = tensor.shape, tensor.dtype, tensor.device, kind
            alike.setdefault(key, []).append(place)
    for (shape, _, device, _), places in alike.items():
        count = _together(shape.numel(), device)
        chosen.extend(places[start : start + count] for start in range(0, len(places), count))
    return sorted(chosen)


def _together(size: int, device: torch.device) -> int:
    """Return how many tensors of a size a stack has at most."""
    if size > _SMALL.get(device.type, _SMALL_ELSEWHERE):
        return 1
    most = _MOST.get(device.type, _MOST_ELSEWHERE)
    return max(1, most // size) if size else most


def is_stackable(tensor: Tensor, *others: Tensor) -> bool:
    """Return whether a tensor is small enough for a stack, and it and others are contiguous."""
    if _together(tensor.numel(), tensor.device) == 1:
        return False
    return tensor.is_contiguous() and all(other.is_contiguous() for other in others)


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Return tensors of one shape as one tensor with one more dimension, the first.

    It is a copy of several tensors, unless they lie side by side in memory. A lone one is returned
    as it is. Matrices keep their order of strides, by which products round.
    """
    if len(tensors) == 1:
        return tensors[0]
    side_by_side = _as_one(tensors)
    if side_by_side is not None:
        return side_by_side
    if tensors[0].is_contiguous() or not _is_dense(tensors[0]):
        return torch.stack(list(tensors))
    return torch.stack([matrix.mT for matrix in tensors]).mT


def stacked_state(tensors: Sequence[Tensor]) -> Tensor:
    """Return tensors of state as `stacked` does, on a CPU after moving them side by side.

    They stay the same objects, with their elements in one memory, so that the next stack of them
    need not be copied. Those that lie beside others already are left there: only what is new or
    loaded moves, and memory that some tensors have left is not kept by those that stay.
    """
    if len(tensors) == 1 or not all(map(_can_move, tensors)):
        return stacked(tensors)
    first = tensors[0]
    memory = first.new_empty(len(tensors), first.numel())
    for tensor, part in zip(tensors, memory, strict=True):
        tensor.data = part.as_strided(first.shape, first.stride()).copy_(tensor)
    return stacked(tensors)


def _as_one(tensors: Sequence[Tensor]) -> Tensor | None:
    """Return a view of tensors that lie side by side in one storage, and None of others."""
    first = tensors[0]
    if not _has_address(first) or not _is_dense(first):
        return None
    begin, size = first.data_ptr(), first.nbytes
    # Whatever begins in the memory of a storage is on it.
    room = first.untyped_storage().nbytes() - first.storage_offset() * first.itemsize
    if not size or room < len(tensors) * size or tensors[1].data_ptr() != begin + size:
        return None
    places = range(begin, begin + len(tensors) * size, size)
    if [*map(torch.Tensor.data_ptr, tensors)] != [*places] or not _are_in_one_order(tensors):
        return None
    return first.as_strided((len(tensors), *first.shape), (first.numel(), *first.stride()))


def _are_in_one_order(tensors: Sequence[Tensor]) -> bool:
    """Whether tensors of one shape, the first one dense, have their elements in the same order."""
    if tensors[0].is_contiguous():  # asking for this takes half the time of asking for strides
        return all(map(torch.Tensor.is_contiguous, tensors))
    strides = tensors[0].stride()
    return all(tensor.stride() == strides for tensor in tensors)


def _has_address(tensor: Tensor) -> bool:
    """Whether a tensor is on a CPU, and neither fake, as those of compilers, nor made of others."""
    return tensor.is_cpu and type(tensor) is torch.Tensor and not torch.compiler.is_compiling()


def _is_dense(tensor: Tensor) -> bool:
    return tensor.is_contiguous() or (tensor.ndim > 1 and tensor.mT.is_contiguous())


def _can_move(tensor: Tensor) -> bool:
    """Return whether a tensor on a CPU has a storage of its own, without gaps."""
    alone = _has_address(tensor) and tensor.untyped_storage().nbytes() == tensor.nbytes
    return alone and _is_dense(tensor)


def rows(stack: Tensor, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the tensors in a stack that was made of others, or from a stack of these."""
    return stack.unbind() if len(tensors) > 1 else [stack]


def write_back(stack: Tensor, tensors: Sequence[Tensor]) -> None:
    """Copy a changed stack to the tensors that it was made of, unless it is their memory."""
    if len(tensors) == 1 or (_has_address(stack) and stack.data_ptr() == tensors[0].data_ptr()):
        return
    torch._foreach_copy_(list(tensors), stack.unbind())


def scale(tensors: Sequence[Tensor], factors: Sequence[float]) -> None:
    """Multiply each tensor by its factor, rounding as `mul_` does.

    On a CPU `torch._foreach_mul_` (2.13) first rounds the factors to the dtype of the tensors: to a
    bf16 number near 1, which a weight decay of less than 0.2 % does not survive.
    """
    if len(tensors) == 1 or tensors[0].dtype in _HALF:
        for tensor, factor in zip(tensors, factors, strict=True):
            tensor.mul_(factor)
    elif tensors[0].device.type == "cpu" and len(set(factors)) == 1:
        # torch (2.13) would make a tensor of the factor for each of them, in four times the time.
        number = torch.tensor(factors[0], dtype=torch.float64, device="cpu")
        torch._foreach_mul_(list(tensors), number)
    else:
        torch._foreach_mul_(list(tensors), list(factors))


def add(tensors: Sequence[Tensor], others: Sequence[Tensor], alpha: float) -> None:
    """Add to each tensor so many times another one."""
    if len(tensors) == 1:  # a call for lists takes longer
        tensors[0].add_(others[0], alpha=alpha)
    else:
        torch._foreach_add_(list(tensors), list(others), alpha=alpha)


def add_to_stack(stack: Tensor, others: Tensor, alpha: float) -> None:
    """Add to each tensor of a stack so many times its partner, rounding as for each alone.

    On a CPU torch (2.13) rounds bf16 and fp16 elements at the end of a tensor otherwise.
    """
    if stack.dtype in _HALF and len(stack) > 1:
        torch._foreach_add_(list(stack.unbind()), list(others.unbind()), alpha=alpha)
    else:
        stack.add_(others, alpha=alpha)


def each(numbers: Tensor, stack: Tensor) -> Tensor:
    """Return one number for each tensor of a stack, in a shape that multiplies with the stack.

    The number of a lone tensor has no dimension, as `stacked` leaves it.
    """
    return numbers.view(-1, *(1 for _ in stack.shape[1:])) if numbers.ndim else numbers
