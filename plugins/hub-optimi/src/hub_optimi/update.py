"""The arithmetic of optimi's StableAdamW, for many tensors at once.

Each element goes through the operations of `_single_param_stableadamw` of optimi 0.3.3
(`optimi/stableadamw.py`), and rounds as there. Upstream reads a number back for each tensor, which
waits for a GPU; here each stack of tensors reads its numbers at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from optimi.stableadamw import _single_param_stableadamw
from optimi.utils import debias_beta

from hub.updates.stacking import each, scale, stacked, stacked_state, stacks, write_back

if TYPE_CHECKING:
    from torch import Tensor

    Group = dict[str, Any]

LOW_PRECISION = (torch.bfloat16, torch.float16)
_OWN = ("params", "grads", "exp_avgs", "exp_avg_sqs", "eps_sqs", "kahan_comps")


def update(group: Group, lists: dict[str, list[Any]]) -> None:
    """Update a group's tensors, small ones of a shape together, and count its step.

    Args:
        group: Settings and step count, as upstream has them.
        lists: Upstream's, of its `_init_group`.
    """
    group["step"].add_(1)
    count = group["step"].item()
    settings = {
        "lr": group["lr"],
        "beta1_comp": 1 - debias_beta(group["beta1"], count),
        "beta2_hat": debias_beta(group["beta2"], count),
        "beta2_comp": 1 - debias_beta(group["beta2"], count),
        "weight_decay": group["weight_decay"],
        "eps": group["eps"],
        "decouple_lr": group["decouple_lr"],
        "max_lr": group["max_lr"],
    }
    own: Any = [lists[name] for name in _OWN]
    apart = group["foreach"] is False
    places = [[i] for i in range(len(own[0]))] if apart else stacks(own[0], own[1])
    for chosen in places:
        if len(chosen) == 1:
            alone: Any = [one[chosen[0]] for one in own]
            _update_one(*alone, kahan_sum=group["kahan_sum"], settings=settings)
        else:
            alike: Any = [[one[i] for i in chosen] for one in own]
            _update_stack(*alike, kahan_sum=group["kahan_sum"], settings=settings)


def _update_one(
    weight: Tensor,
    grad: Tensor,
    mean: Tensor,
    square: Tensor,
    floor: Tensor,
    lost: Tensor | None,
    *,
    kahan_sum: bool | None,
    settings: dict[str, Any],
) -> None:
    """Call upstream's function, which uses the gradient as scratch space for Kahan summation."""
    if kahan_sum and weight.dtype in LOW_PRECISION:
        grad = grad.clone()
    _single_param_stableadamw(
        weight, grad, mean, square, floor, lost, kahan_sum=kahan_sum, **settings
    )


def _update_stack(
    weights: list[Tensor],
    grads: list[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
    floors: list[Tensor],
    lost: list[Any],
    *,
    kahan_sum: bool | None,
    settings: dict[str, Any],
) -> None:
    """Update tensors of one shape."""
    grad, mean, square = stacked(grads), stacked_state(means), stacked_state(squares)
    mean.lerp_(grad, weight=settings["beta1_comp"])
    square.mul_(settings["beta2_hat"]).addcmul_(grad, grad, value=settings["beta2_comp"])
    write_back(mean, means)
    write_back(square, squares)
    sizes = _sizes(grad, square, stacked_state(floors))
    rates = [settings["lr"] / max(1, size) for size in sizes]
    _decay(weights, rates, settings)
    denominators = square.sqrt().add_(settings["eps"])
    moved = lost if kahan_sum and weights[0].dtype in LOW_PRECISION else weights
    scalars = [-rate for rate in rates]
    torch._foreach_addcdiv_(moved, means, list(denominators.unbind()), scalars=scalars)
    if moved is lost:
        _add_compensated(weights, lost)


def _sizes(grad: Tensor, square: Tensor, floor: Tensor) -> list[float]:
    """Return the root of the mean ratio of each gradient's square to its average."""
    ratio = grad.pow(2).div_(square.maximum(each(floor, square)))
    sizes: list[float] = ratio.unsqueeze(-1).flatten(1).mean(1).sqrt().tolist()
    return sizes


def _decay(weights: list[Tensor], rates: list[float], settings: dict[str, Any]) -> None:
    decay = settings["weight_decay"]
    if decay != 0:
        base = settings["max_lr"] if settings["decouple_lr"] else 1
        scale(weights, [1 - (rate / base) * decay for rate in rates])


def _add_compensated(weights: list[Tensor], lost: list[Tensor]) -> None:
    """Add updates to weights, and keep what rounding takes from them."""
    after = torch._foreach_add(weights, lost)  # noqa: SLF001 - as torch.optim does
    torch._foreach_sub_(weights, after)
    torch._foreach_add_(lost, weights)
    torch._foreach_copy_(weights, after)
