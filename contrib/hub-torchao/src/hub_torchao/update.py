"""One update of torchao's low-bit AdamW, compiled once for tensors of all shapes."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch._dynamo import mark_dynamic
from torchao.optim.quant_utils import (
    _fp32_to_bf16_sr,
    dequant_with_qmap,
    quantize_4bit_with_qmap,
    quantize_8bit_with_qmap,
    scale_tensor,
)
from torchao.optim.subclass_4bit import OptimState4bit
from torchao.optim.subclass_8bit import OptimState8bit

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Parts = tuple[Tensor, ...]
    """Codes, scales and map of quantized state, or a plain tensor alone."""

_QUANTIZED = (OptimState4bit, OptimState8bit)
_4_BITS = 16
"""The length of the quantization map of 4-bit state."""


def update(
    parameter: Tensor, state: dict[str, Any], group: dict[str, Any], *, is_random: bool
) -> None:
    """Count a step of a parameter and take it, with the group's settings.

    Computes as `single_param_adam` of torchao 0.18 (`optim/adam.py`) does. Upstream compiles that
    for each shape, since it passes tensors in their shapes. Here they are blocks of quantized state
    in rows, or elements in one dimension, so that all shapes share a kernel, and weight decay and
    eps are tensors, so that all groups do.

    Args:
        parameter: Has a gradient.
        state: Upstream's: `step`, `exp_avg` and `exp_avg_sq`.
        group: The settings.
        is_random: Whether the updated weights are rounded up or down at random.
    """
    state["step"] += 1
    tensors = [parameter.detach(), state["exp_avg"], state["exp_avg_sq"]]
    is_quantized = isinstance(tensors[1], _QUANTIZED)
    rows = (len(tensors[1].scale), -1) if is_quantized else (-1,)
    weight, mean, square = (_parts(tensor, rows) for tensor in tensors)
    lr, (beta1, beta2) = group["lr"], group["betas"]
    decay, eps = (torch.tensor(group[key], dtype=torch.float32) for key in ("weight_decay", "eps"))
    grad = _as_rows(parameter.grad, rows)
    moments = (state["step"], mean, square)
    compiled = _compiled(os.environ.get("TORCHDYNAMO_DISABLE"))
    compiled(weight[0], grad, *moments, lr, beta1, beta2, decay, eps, is_random)
    for tensor, (changed, *_) in zip(tensors, (weight, mean, square), strict=True):
        if not (isinstance(tensor, _QUANTIZED) or tensor.is_contiguous()):
            tensor.copy_(changed.view(tensor.shape))


def _as_rows(tensor: Any, rows: tuple[int, ...]) -> Tensor:
    """Return a view of a tensor whose rows may be of any number, or a copy if it needs one."""
    flat: Tensor = tensor.reshape(rows)
    mark_dynamic(flat, 0)
    return flat


def _parts(tensor: Any, rows: tuple[int, ...]) -> Parts:
    if not isinstance(tensor, _QUANTIZED):
        return (_as_rows(tensor, rows),)
    return (_as_rows(tensor.codes, rows), _as_rows(tensor.scale, (-1,)), tensor.qmap)


def _step(
    p: Tensor,
    grad: Tensor,
    step: Tensor,
    mean: Parts,
    square: Parts,
    lr: Tensor,
    beta1: float,
    beta2: float,
    weight_decay: Tensor,
    eps: Tensor,
    is_random: bool,
) -> None:
    exact, wide = p.float(), grad.float()
    exact = exact - lr * weight_decay * exact
    correction1, correction2 = 1 - beta1**step, 1 - beta2**step
    average = _read(mean).lerp(wide, 1 - beta1)
    average_square = _read(square).lerp(wide.square(), 1 - beta2)
    _write(mean, average)
    _write(square, average_square)
    denominator = (average_square.sqrt() / correction2.sqrt()) + eps
    exact = exact - lr * (average / correction1) / denominator
    p.copy_(_fp32_to_bf16_sr(exact) if is_random else exact)


def _read(parts: Parts) -> Tensor:
    if len(parts) == 1:
        return parts[0].float()
    codes, scale, qmap = parts
    if len(qmap) == _4_BITS:
        codes = torch.stack([codes >> 4, codes & 0b1111], dim=-1).flatten(1)
    values: Tensor = dequant_with_qmap(codes, qmap, scale)
    return values


def _write(parts: Parts, value: Tensor) -> None:
    if len(parts) == 1:
        parts[0].copy_(value)
        return
    codes, scale, qmap = parts
    scaled, scales = scale_tensor(value, value.shape[-1])
    if len(qmap) == _4_BITS:
        found = quantize_4bit_with_qmap(scaled, qmap)
        codes.copy_((found[:, ::2] << 4) | found[:, 1::2])
    else:
        codes.copy_(quantize_8bit_with_qmap(scaled, qmap))
    scale.copy_(scales)


@cache
def _compiled(_disabled: str | None) -> Callable[..., None]:
    """Return the compiled update; torch reads TORCHDYNAMO_DISABLE when it wraps a function."""
    return torch.compile(_step, fullgraph=True, dynamic=False)
