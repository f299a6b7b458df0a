"""The arithmetic of GrokAdamW, for many tensors at once.

Each element goes through the operations of `GrokAdamW._update_group` of grokadamw 0.1.2
(`grokadamw/grokadamw.py`), in the same order, and rounds as there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from hub.measuring import local_part
from hub.updates.stacking import each, rows, scale, stacked, stacked_state, stacks, write_back

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    Group = dict[str, Any]

_TENSORS = ("exp_avg", "exp_avg_sq", "grok_ema")


def update(group: Group, parameters: Sequence[Tensor], states: Sequence[Any], rate: float) -> None:
    """Update a group's parameters with gradients, small ones of a shape together.

    Args:
        group: Settings.
        parameters: Those with a gradient.
        states: Their states; the moments and the count are added if they are missing.
        rate: Of the slow average's decay.
    """
    for parameter, state in zip(parameters, states, strict=True):
        _count(parameter, state)
    grads: list[Any] = [parameter.grad for parameter in parameters]
    norms = [_norm(grad) for grad in grads] if any(map(_is_sharded, grads)) else []
    parts = [local_part(grad) for grad in grads]
    for places in stacks([local_part(parameter) for parameter in parameters], parts):
        alike, own = [parameters[i] for i in places], [states[i] for i in places]
        known = stacked([norms[i] for i in places]) if norms else None
        _update_alike(group, alike, [parts[i] for i in places], known, own, rate)


def _count(parameter: Tensor, state: Any) -> None:
    if "step" not in state:
        state["step"] = 0
        for key in _TENSORS:
            state[key] = torch.zeros_like(parameter)
    state["step"] += 1


def _update_alike(
    group: Group,
    parameters: list[Any],
    grads: list[Tensor],
    norms: Tensor | None,
    states: list[Any],
    rate: float,
) -> None:
    """Add the slow average to the gradients, take AdamW's step with them, and decay.

    The parts of sharded parameters that this rank has are updated as plain tensors.
    """
    means, squares, slows = ([local_part(state[key]) for state in states] for key in _TENSORS)
    grad = _amplified(group, grads, norms, slows, rate)
    beta1, beta2 = group["betas"]
    own = [beta1 * (1 - group["gamma"]) ** state["place"] for state in states]
    scale(means, own)
    for mean, row, kept in zip(means, rows(grad, means), own, strict=True):
        mean.add_(row, alpha=1 - kept)
    square = stacked_state(squares)
    square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    write_back(square, squares)
    weights = [local_part(parameter) for parameter in parameters]
    scale(weights, [1 - group["lr"] * group["weight_decay"]] * len(weights))
    denominators = rows(square.sqrt().add_(group["eps"]), squares)
    sizes = [-_size(group, state["step"]) for state in states]
    torch._foreach_addcdiv_(weights, means, list(denominators), scalars=sizes)


def _size(group: Group, steps: int) -> float:
    beta1, beta2 = group["betas"]
    size: float = group["lr"] * math.sqrt(1 - beta2**steps) / (1 - beta1**steps)
    return size


def _amplified(
    group: Group, grads: list[Tensor], norms: Tensor | None, slows: list[Tensor], rate: float
) -> Tensor:
    """Move the slow averages, and return the clipped gradients with their share of them."""
    grad = stacked(grads)
    if group["gradient_clipping"] > 0:
        if norms is None:
            norms = _norms(grad) if len(grads) > 1 else _norm(grad)
        grad = grad * each((group["gradient_clipping"] / (norms + 1e-6)).clamp(max=1.0), grad)
    scale(slows, [rate] * len(slows))
    # Not in a stack: with `alpha`, bf16 elements at the end of a tensor round otherwise on a CPU.
    torch._foreach_add_(slows, list(rows(grad, slows)), alpha=1 - rate)
    amplified: Tensor = (group["lamb"] * stacked_state(slows)).add_(grad)
    return amplified


def _norms(grads: Tensor) -> Tensor:
    """Return the norm of each gradient of a stack."""
    norms: Tensor = torch.linalg.vector_norm(grads.unsqueeze(-1).flatten(1), dim=1)
    return norms


def _norm(grad: Any) -> Tensor:
    """Return a gradient's norm; of a sharded one, that of all its parts."""
    norm: Any = torch.linalg.vector_norm(grad)
    whole: Tensor = norm.full_tensor() if _is_sharded(norm) else norm
    return whole


def _is_sharded(tensor: Any) -> bool:
    return hasattr(tensor, "full_tensor")
