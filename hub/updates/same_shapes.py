"""Step parameters of equal shape together, so that each operation is one call for all of them.

Hundreds of small matrices, as LoRA has, cost an optimizer that steps them one by one nearly nothing
but calls. Large ones stay alone: they are limited by memory, and their intermediate results should
not add up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from hub.updates.stacking import add, add_to_stack, stacked, stacked_state, stacks, write_back
from hub.updates.stepping import StepWithClosure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor
    from torch.optim import Optimizer

    Group = dict[str, Any]
    State = dict[str, Any]
    _Layout = tuple[torch.Size, tuple[int, ...]]  # a shape and strides
    _Item = tuple[Tensor, Any, str, State]  # a parameter, its gradient, name and state

_SMALL = 2**15
"""Matrices of more elements are multiplied one by one."""
_SINGLE = 1
_TOLD_APART = (torch.float32, torch.float64)
_TRIED = 20_000
"""The least elements of products that show how they are rounded."""


@dataclass(slots=True)  # frozen ones take as long to make as an operation on a small tensor
class Bucket:
    """Parameters of one group with the same shape, dtype and device, that took as many steps."""

    group: dict[str, Any]
    parameters: list[Any]
    names: list[str]
    """Empty strings in a group without names."""
    states: list[dict[str, Any]]
    """Each has at least `step`."""
    gradient: Any
    """Of all, of shape (parameters, *shape)."""

    @property
    def shape(self) -> torch.Size:
        """Of each parameter."""
        size: torch.Size = self.parameters[0].shape
        return size

    def count(self) -> int:
        """Count a step in each state, and return its number."""
        step: int = self.states[0]["step"] + 1
        for state in self.states:
            state["step"] = step
        return step

    def column(self, key: str) -> list[Any]:
        """Return what each state has under a key."""
        return [state[key] for state in self.states]

    def stack(self, key: str) -> Tensor:
        """Return the tensors under a key of the states, of shape (parameters, *shape).

        Call `write` once it has changed.
        """
        tensors = self.column(key)
        return stacked_state(tensors) if len(tensors) > _SINGLE else tensors[0].unsqueeze(0)

    def write(self, key: str, stack: Tensor) -> None:
        """Keep a stack that has changed in place."""
        write_back(stack, self.column(key))


class InBuckets(StepWithClosure):
    """Mixin whose step goes through the buckets of each group.

    List it before the upstream class, and define `_update(bucket)`. galore_torch 1.0 and
    apollo_torch 1.0.3 call the closure with gradients disabled.
    """

    def _update_all(self: Any) -> None:
        for group in self.param_groups:
            for bucket in buckets(self, group):
                self._update(bucket)


def buckets(optimizer: Optimizer, group: Group) -> Iterator[Bucket]:
    """Yield the parameters of a group that have gradients; each is in one bucket.

    Raises:
        RuntimeError: A gradient is sparse.
    """
    if len(group["params"]) == _SINGLE:  # as layerwise forms step
        if _gradient(optimizer, group["params"][0]) is not None:
            yield single(optimizer, group, 0)
        return
    names = group.get("param_names") or [""] * len(group["params"])
    items: list[_Item] = []
    kinds = []
    for parameter, name in zip(group["params"], names, strict=True):
        gradient = _gradient(optimizer, parameter)
        if gradient is not None:
            state = optimizer.state[parameter]
            items.append((parameter, gradient, name, state))
            kinds.append((gradient.dtype, state.setdefault("step", 0), len(state)))
    parameters, gradients = [item[0] for item in items], [item[1] for item in items]
    for places in stacks(parameters, gradients, kinds=kinds):
        yield _bucket(group, [items[place] for place in places])


def _gradient(optimizer: Optimizer, parameter: Tensor) -> Tensor | None:
    gradient = parameter.grad
    if gradient is not None and gradient.layout is not torch.strided:
        raise RuntimeError(f"{type(optimizer).__name__} does not support sparse gradients")
    return gradient


def single(optimizer: Optimizer, group: Group, index: int) -> Bucket:
    """Return a bucket of one parameter, which has a gradient."""
    parameter = group["params"][index]
    state = optimizer.state[parameter]
    state.setdefault("step", 0)
    names = group.get("param_names")
    return _bucket(group, [(parameter, parameter.grad, names[index] if names else "", state)])


def _bucket(group: Group, items: Sequence[_Item]) -> Bucket:
    parameters, gradients, names, states = map(list, zip(*items, strict=True))
    return Bucket(group, parameters, names, states, in_stack(gradients))


def in_stack(tensors: Sequence[Any]) -> Tensor:
    """Return tensors of one shape as one tensor with one more dimension, also a lone one.

    Of a lone tensor it is a view.
    """
    stack = stacked(tensors)
    return stack if len(tensors) > _SINGLE else stack.unsqueeze(0)


def of_stack(stack: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors of a stack."""
    return stack.unbind() if len(stack) > _SINGLE else (stack.squeeze(0),)


def products(left: Tensor, right: Tensor) -> Tensor:
    """Return the product of each matrix of a stack with its partner, as `torch.mm` rounds it.

    On a CPU the batched product is only taken where it rounds as single ones, so that an update
    does not depend on what else is stepped. On other devices the two may round differently.

    Args:
        left: Of shape (number, rows, inner).
        right: Of shape (number, inner, columns).
    """
    if len(left) == _SINGLE:
        return torch.mm(left.squeeze(0), right.squeeze(0)).unsqueeze(0)
    are_small = max(left.shape[1:].numel(), right.shape[1:].numel()) <= _SMALL
    if are_small and _batched_is_single(left, right):
        return torch.bmm(left, right)
    return in_stack([torch.mm(*pair) for pair in zip(left.unbind(), right.unbind(), strict=True)])


def _batched_is_single(left: Tensor, right: Tensor) -> bool:
    """Whether to take the batched product for the single ones."""
    if not left.is_cpu:
        return True
    if torch.compiler.is_compiling():
        return False
    if type(left) is not torch.Tensor:  # a fake one
        return True
    layouts = ((each.shape, each.stride()) for each in (left, right))
    return _round_alike(*layouts, left.dtype, torch.get_num_threads())


@cache
def _round_alike(left: _Layout, right: _Layout, dtype: torch.dtype, _threads: int) -> bool:
    """Return whether a batched product rounds as single ones, found by multiplying random numbers.

    BLAS libraries choose their code by shapes, strides and threads, and each by other rules: MKL
    2024.2 differs on processors with AVX2, but hardly with AVX-512. Products in bf16 and fp16 are
    taken for different: they are summed in fp32, and most differences then rounded away.
    """
    if dtype not in _TOLD_APART:
        return False
    generator = torch.Generator().manual_seed(0)
    elements = left[0][0] * left[0][1] * right[0][2]
    for _ in range(math.ceil(_TRIED / max(1, elements))):
        stacks = [
            torch.empty_strided(shape, strides, dtype=dtype, device="cpu").normal_(
                generator=generator
            )
            for shape, strides in (left, right)
        ]
        # Copies: code may depend on where a matrix begins.
        pairs = zip(*([matrix.clone() for matrix in stack] for stack in stacks), strict=True)
        if not torch.equal(torch.bmm(*stacks), torch.stack([torch.mm(*pair) for pair in pairs])):
            return False
    return True


def start(bucket: Bucket, key: str, like: Tensor) -> None:
    """Make a moment of zeros in states that lack it, each like a slice of a stack."""
    if key not in bucket.states[0]:
        for state, one in zip(bucket.states, like.unbind(), strict=True):
            state[key] = torch.zeros_like(one)


def adam_quotient(bucket: Bucket, gradient: Tensor) -> Tensor:
    """Update both moments of AdamW, and return their quotient, not yet corrected for their start.

    Operations and their order are those of the AdamW that Transformers once had, and galore_torch
    1.0 and apollo_torch 1.0.3 (adamw.py) have.
    """
    beta1, beta2 = bucket.group["betas"]
    first, second = bucket.stack("exp_avg"), bucket.stack("exp_avg_sq")
    add_to_stack(first.mul_(beta1), gradient, 1.0 - beta1)
    # Not `addcmul_`: compiled, that of torch 2.13 rounds otherwise.
    torch._foreach_addcmul_([second.mul_(beta2)], [gradient], [gradient], value=1.0 - beta2)
    bucket.write("exp_avg", first)
    bucket.write("exp_avg_sq", second)
    denominator = second.sqrt().add_(bucket.group["eps"])
    return torch.div(first, denominator, out=denominator)


def adam_move(bucket: Bucket, update: Tensor) -> None:
    """Count the step, and take it: move parameters by an update, and then let them decay.

    As the AdamW of `adam_quotient`.

    Args:
        bucket: The parameters.
        update: For each, of shape (parameters, *shape).
    """
    group, step = bucket.group, bucket.count()
    rate: float = group["lr"]
    if group["correct_bias"]:
        beta1, beta2 = group["betas"]
        rate = rate * math.sqrt(1.0 - beta2**step) / (1.0 - beta1**step)
    add(bucket.parameters, of_stack(update), -rate)
    if group["weight_decay"] > 0.0:
        add(bucket.parameters, bucket.parameters, -group["lr"] * group["weight_decay"])


def norms(tensors: Tensor) -> Tensor:
    """Return the Euclidean norm of each tensor of a stack."""
    return torch.stack(torch._foreach_norm(tensors.unbind()))  # noqa: SLF001
