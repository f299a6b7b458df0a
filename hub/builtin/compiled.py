"""torch's AdamW with an update that torch.compile fuses, once for tensors of all shapes."""

from __future__ import annotations

import math
import os
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from hub import backend
from hub.measuring import local_part
from hub.updates.stacking import stacked, stacks, write_back

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Group = dict[str, Any]


def adamw(
    groups: list[Group],
    *,
    compile: bool = False,  # noqa: A002 - the argument's name
    **arguments: Any,
) -> torch.optim.AdamW:
    """Return torch's AdamW, whose update is compiled if that is asked for."""
    if not compile:
        return torch.optim.AdamW(groups, **arguments)
    backend.load("torch._inductor.compile_fx")  # which warns, and the first step would import
    return CompiledAdamW(groups, **arguments)


class CompiledAdamW(torch.optim.AdamW):
    """torch's class, with one compiled kernel instead of twelve operations.

    Computes as `_single_tensor_adam` (torch 2.13, `optim/adam.py`), but in registers: fp32 weights
    differ from the eager step's by rounding, and bf16 ones are computed in fp32 and rounded once.
    Tensors are passed in one dimension of any length, and all settings as tensors, so that neither
    another shape nor another learning rate compiles again.
    """

    def _init_group(self, group: Group, *lists: list[Any]) -> bool:
        """Step the group's parameters, and leave none to upstream's step, which calls this."""
        has_complex: bool = super()._init_group(group, *lists)  # type: ignore[no-untyped-call]
        parameters, grads, means, squares, _, steps = lists
        at: dict[float, list[int]] = {}
        for place, step in enumerate(steps):
            at.setdefault(step.add_(1).item(), []).append(place)
        for count, places in at.items():
            numbers = _numbers(group, count)
            p, m, v, g = (_parts(one, places) for one in (parameters, means, squares, grads))
            for chosen in stacks(p, m, v, g):
                alike = [[one[i] for i in chosen] for one in (p, m, v, g)]
                _update(alike, numbers, maximize=group["maximize"])
        for each in lists:
            each.clear()
        return has_complex


def _numbers(group: Group, count: float) -> list[Tensor]:
    """Return what the update multiplies with and adds in this step."""
    (beta1, beta2), lr = group["betas"], float(group["lr"])
    numbers = (
        1 - lr * group["weight_decay"],
        1 - beta1,
        beta2,
        1 - beta2,
        math.sqrt(1 - beta2**count),
        group["eps"],
        lr / (1 - beta1**count),
    )
    return [torch.tensor(number, dtype=torch.float64) for number in numbers]


def _parts(tensors: list[Tensor], places: list[int]) -> list[Tensor]:
    """Return what this rank has of some tensors."""
    return [local_part(tensors[place]).detach() for place in places]


def _update(alike: list[list[Tensor]], numbers: list[Tensor], *, maximize: bool) -> None:
    """Update tensors of one shape together.

    Args:
        alike: The parameters, their first and second moments, and their gradients.
        numbers: Of `_numbers`.
        maximize: Whether to go up.
    """
    together = [stacked(tensors) for tensors in alike]
    flat = [_flat(stack) for stack in together]
    compiled = _compiled(os.environ.get("TORCHDYNAMO_DISABLE"))
    compiled(*flat, *numbers, maximize=maximize)
    for tensors, stack, changed in zip(alike[:3], together, flat, strict=False):
        write_back(stack, tensors)
        if not stack.is_contiguous():  # a lone tensor
            stack.copy_(changed.view(stack.shape))


def _flat(tensor: Tensor) -> Tensor:
    """Return a tensor's elements in one dimension, as a view if it is contiguous."""
    flat = tensor.reshape(-1)
    torch._dynamo.mark_dynamic(flat, 0)  # noqa: SLF001 - has no other name
    return flat


def _step(
    parameter: Tensor,
    mean: Tensor,
    square: Tensor,
    grad: Tensor,
    kept: Tensor,
    new1: Tensor,
    beta2: Tensor,
    new2: Tensor,
    root: Tensor,
    eps: Tensor,
    size: Tensor,
    *,
    maximize: bool,
) -> None:
    grad = -grad if maximize else grad
    parameter.mul_(kept)
    mean.lerp_(grad, new1.to(mean.dtype))
    square.mul_(beta2).add_(new2 * grad * grad)
    parameter.sub_(size * (mean / (square.sqrt() / root + eps)))


@cache
def _compiled(_disabled: str | None) -> Callable[..., None]:
    """Return the compiled update; torch reads TORCHDYNAMO_DISABLE when it wraps a function."""
    return torch.compile(_step, fullgraph=True, dynamic=False)
