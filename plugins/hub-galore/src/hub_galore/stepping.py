"""The steps of `GaLoreAdamW` and `GaLoreAdafactor`, for parameters of equal shape at once.

Each does what galore_torch 1.0 does for one parameter (adamw.py, adafactor.py), operation by
operation, so that weights are equal to the last bit where torch rounds stacked tensors as single
ones; see `hub.updates.same_shapes`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from galore_torch import GaLoreAdafactor as UpstreamAdafactor
from galore_torch import GaLoreAdamW as UpstreamAdamW

from hub.updates.low_rank import NumbersLowRank
from hub.updates.same_shapes import InBuckets, adam_move, adam_quotient, in_stack, norms, start
from hub.updates.stacking import add_to_stack, each
from hub_galore.projected import Projected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from hub.updates.same_shapes import Bucket

    Group = dict[str, Any]

_HALF = (torch.float16, torch.bfloat16)
_MATRIX = 3
"""Dimensions of stacked matrices."""


class _Projecting(InBuckets, NumbersLowRank):
    """Mixin for both."""

    def _projected(self: Any, bucket: Bucket) -> Projected | None:
        return Projected(bucket, self.low_rank_numbers) if "rank" in bucket.group else None


class GaLoreAdamW(_Projecting, UpstreamAdamW):  # type: ignore[misc]  # untyped
    """Upstream's class, stepping parameters of equal shape together."""

    def _update(self, bucket: Bucket) -> None:
        projected = self._projected(bucket)
        start(bucket, "exp_avg", bucket.gradient)
        start(bucket, "exp_avg_sq", bucket.gradient)
        update = adam_quotient(bucket, bucket.gradient)
        if projected is not None:
            update = projected.back(update)
        adam_move(bucket, update)


class GaLoreAdafactor(_Projecting, UpstreamAdafactor):  # type: ignore[misc]  # untyped
    """Upstream's class, stepping parameters of equal shape together.

    `scale_parameter=True` does not wait for the device for each parameter.
    """

    def _update(self, bucket: Bucket) -> None:
        if bucket.gradient.dtype in _HALF:
            bucket = replace(bucket, gradient=bucket.gradient.float())
        projected = self._projected(bucket)
        weights = bucket.parameters
        if weights[0].dtype in _HALF:
            weights = [weight.float() for weight in weights]
        lengths = torch._foreach_norm(weights)  # noqa: SLF001
        sizes = torch._foreach_div(lengths, bucket.shape.numel() ** 0.5)  # noqa: SLF001
        rate = _count(bucket, sizes)
        update = _adafactor_update(bucket)
        update.mul_(each(rate, update) if isinstance(rate, torch.Tensor) else rate)
        if bucket.group["beta1"] is not None:
            update = _averaged(bucket, update)
        if projected is not None:
            update = projected.back(update)
        _decay(weights, bucket.group["weight_decay"], rate)
        torch._foreach_sub_(weights, update.unbind())
        if weights is not bucket.parameters:
            torch._foreach_copy_(bucket.parameters, weights)


def _count(bucket: Bucket, sizes: Sequence[Tensor]) -> float | Tensor:
    """Count the step, and return the learning rate; with `scale_parameter` that of each."""
    group, step = bucket.group, bucket.count()
    for state, size in zip(bucket.states, sizes, strict=True):
        state["RMS"] = size
    rate: float = group["lr"]
    if group["relative_step"]:
        least = 1e-6 * step if group["warmup_init"] else 1e-2
        rate = min(least, 1.0 / math.sqrt(step))
    if not group["scale_parameter"]:
        return rate
    size, least = in_stack(sizes), group["eps"][1]
    # As Python's `max`: what is not finite counts as small.
    return torch.where(size > least, size * rate, torch.full_like(size, least * rate))


def _adafactor_update(bucket: Bucket) -> Tensor:
    """Update the moments, and return the gradient over the root of the second, clipped."""
    group, gradient = bucket.group, bucket.gradient
    decay = 1.0 - math.pow(bucket.states[0]["step"], group["decay_rate"])
    square = gradient**2 + group["eps"][0]
    if gradient.ndim >= _MATRIX:
        means = {"exp_avg_sq_row": square.mean(dim=-1), "exp_avg_sq_col": square.mean(dim=-2)}
        rows, columns = (_mixed_in(bucket, *item, decay) for item in means.items())
        update = (rows / rows.mean(dim=-1, keepdim=True)).rsqrt_().unsqueeze(-1)
        update = torch.mul(update, columns.unsqueeze(-2).rsqrt()).mul_(gradient)
    else:
        update = _mixed_in(bucket, "exp_avg_sq", square, decay).rsqrt().mul_(gradient)
    size = norms(update) / update[0].numel() ** 0.5
    return update.div_(each((size / group["clip_threshold"]).clamp_(min=1.0), update))


def _mixed_in(bucket: Bucket, key: str, new: Tensor, decay: float) -> Tensor:
    """Update one of the moments by a running average, and return it for all parameters."""
    start(bucket, key, new)
    moments = bucket.stack(key)
    add_to_stack(moments.mul_(decay), new, 1.0 - decay)
    bucket.write(key, moments)
    return moments


def _averaged(bucket: Bucket, update: Tensor) -> Tensor:
    """Update the first moment, and return it; for a single parameter it is the state itself."""
    beta1 = bucket.group["beta1"]
    return _mixed_in(bucket, "exp_avg", update, beta1)


def _decay(weights: list[Any], weight_decay: float, rate: float | Tensor) -> None:
    if weight_decay == 0:
        return
    if isinstance(rate, torch.Tensor):  # one factor for each: `foreach` takes only one for all
        for weight, one in zip(weights, rate.unbind(), strict=True):
            weight.add_(weight, alpha=-weight_decay * one)
    else:
        torch._foreach_add_(weights, weights, alpha=-weight_decay * rate)
