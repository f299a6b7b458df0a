"""torch's AdamW with an update that torch.compile fuses, once for tensors of all shapes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from hub import backend
from hub.builtin.capturable import with_rate_tensors
from hub.updates.kernel import Kernel

if TYPE_CHECKING:
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
        return with_rate_tensors(torch.optim.AdamW(groups, **arguments))
    backend.load("torch._inductor.compile_fx")  # which warns, and the first step would import
    return CompiledAdamW(groups, **arguments)


class CompiledAdamW(torch.optim.AdamW):
    """torch's class, with one compiled kernel instead of twelve operations.

    Computes as `_single_tensor_adam` (torch 2.13, `optim/adam.py`), but in registers: fp32 weights
    differ from the eager step's by rounding, and bf16 ones are computed in fp32 and rounded once.
    """

    def _init_group(self, group: Group, *lists: list[Any]) -> bool:
        """Step the group's parameters, and leave none to upstream's step, which calls this."""
        has_complex: bool = super()._init_group(group, *lists)  # type: ignore[no-untyped-call]
        parameters, grads, means, squares, _, steps = lists
        at: dict[float, list[int]] = {}
        for place, step in enumerate(steps):
            at.setdefault(step.add_(1).item(), []).append(place)
        for count, places in at.items():
            chosen = [
                [one[place] for place in places] for one in (parameters, means, squares, grads)
            ]
            UPDATE(chosen, _numbers(group, count), maximize=group["maximize"])
        for each in lists:
            each.clear()
        return has_complex


def _numbers(group: Group, count: float) -> tuple[float, ...]:
    """Return what the update multiplies with and adds in this step."""
    (beta1, beta2), lr = group["betas"], float(group["lr"])
    return (
        1 - lr * group["weight_decay"],
        1 - beta1,
        beta2,
        1 - beta2,
        math.sqrt(1 - beta2**count),
        group["eps"],
        lr / (1 - beta1**count),
    )


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


UPDATE = Kernel(_step, changes=3)
