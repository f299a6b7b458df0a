"""Step parameters of equal shape together, so that each operation is one call for all of them.

Hundreds of small matrices, as LoRA has, cost an optimizer that steps them one by one nearly nothing
but calls. Large ones stay alone: they are limited by memory, and their intermediate results should
not add up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from hub.updates.stacking import add, scale, stacked, stacks
from hub.updates.stepping import StepWithClosure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor
    from torch.optim import Optimizer

    Group = dict[str, Any]
    State = dict[str, Any]

_SMALL = 2**15
"""Matrices of more elements are multiplied one by one."""
_SINGLE, _LANES, _TINY = 1, 4, 400


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
        if _has_gradient(optimizer, group["params"][0]):
            yield single(optimizer, group, 0)
        return
    names = group.get("param_names") or [""] * len(group["params"])
    alike: dict[Any, list[tuple[Tensor, str, State]]] = {}
    for parameter, name in zip(group["params"], names, strict=True):
        if not _has_gradient(optimizer, parameter):
            continue
        state = optimizer.state[parameter]
        key = parameter.grad.dtype, state.setdefault("step", 0), len(state)
        alike.setdefault(key, []).append((parameter, name, state))
    for items in alike.values():
        parameters = [parameter for parameter, _, _ in items]
        gradients = [parameter.grad for parameter in parameters]
        for places in stacks(parameters, gradients):  # type: ignore[arg-type]
            yield _bucket(group, [items[place] for place in places])


def _has_gradient(optimizer: Optimizer, parameter: Tensor) -> bool:
    gradient = parameter.grad
    if gradient is not None and gradient.layout is not torch.strided:
        raise RuntimeError(f"{type(optimizer).__name__} does not support sparse gradients")
    return gradient is not None


def single(optimizer: Optimizer, group: Group, index: int) -> Bucket:
    """Return a bucket of one parameter, which has a gradient."""
    parameter = group["params"][index]
    state = optimizer.state[parameter]
    state.setdefault("step", 0)
    names = group.get("param_names")
    return _bucket(group, [(parameter, names[index] if names else "", state)])


def _bucket(group: Group, items: Sequence[tuple[Tensor, str, State]]) -> Bucket:
    parameters = [parameter for parameter, _, _ in items]
    return Bucket(
        group,
        parameters,
        [name for _, name, _ in items],
        [state for _, _, state in items],
        in_stack([parameter.grad for parameter in parameters]),
    )


def in_stack(tensors: Sequence[Any]) -> Tensor:
    """Return tensors of one shape as one tensor with one more dimension, also a lone one.

    Of a lone tensor it is a view.
    """
    stack = stacked(tensors)
    return stack if len(tensors) > _SINGLE else stack.unsqueeze(0)


def stacked_matrices(matrices: Sequence[Any]) -> Tensor:
    """Return matrices as one tensor, in the order of strides that they have.

    Products round by that order.
    """
    by_columns = len(matrices) > _SINGLE and matrices[0].stride(0) < matrices[0].stride(1)
    return in_stack([matrix.mT for matrix in matrices]).mT if by_columns else in_stack(matrices)


def of_stack(stack: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors of a stack."""
    return stack.unbind() if len(stack) > _SINGLE else (stack.squeeze(0),)


def products(left: Tensor, right: Tensor) -> Tensor:
    """Return the product of each matrix of a stack with its partner, as `torch.mm` rounds it.

    On CPUs the batched product of torch 2.13 with MKL equals single ones to the last bit in fp32 if
    all sides are multiples of four and the matrices are not tiny;
    others are multiplied one by one. On other devices the two may round differently.

    Args:
        left: Of shape (number, rows, inner).
        right: Of shape (number, inner, columns).
    """
    if len(left) == _SINGLE:
        return torch.mm(left.squeeze(0), right.squeeze(0)).unsqueeze(0)
    if _rounds_alike(left, right):
        return torch.bmm(left, right)
    return in_stack([torch.mm(*pair) for pair in zip(left.unbind(), right.unbind(), strict=True)])


def _rounds_alike(left: Tensor, right: Tensor) -> bool:
    sides = (*left.shape[1:], right.shape[-1])
    size = sides[0] * sides[1] * sides[2]
    if max(left[0].numel(), right[0].numel()) > _SMALL:
        return False
    if left.device.type != "cpu":
        return True
    return (
        left.dtype is torch.float32 and size >= _TINY and all(side % _LANES == 0 for side in sides)
    )


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
    first, second = bucket.column("exp_avg"), bucket.column("exp_avg_sq")
    each = of_stack(gradient)
    scale(first, [beta1] * len(first))
    add(first, each, 1.0 - beta1)
    scale(second, [beta2] * len(second))
    # Also of a lone one: compiled, `addcmul_` (torch 2.13) rounds otherwise.
    torch._foreach_addcmul_(second, each, each, value=1.0 - beta2)
    if len(first) == _SINGLE:
        lone: Tensor = first[0] / second[0].sqrt().add_(bucket.group["eps"])
        return lone.unsqueeze(0)
    return in_stack(first) / in_stack(second).sqrt().add_(bucket.group["eps"])


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
