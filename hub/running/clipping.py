"""`max_grad_norm` for optimizers that step after the backward pass.

`hub.running.layerwise.clipping` is for those that step inside it.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from hub.errors import UnsupportedError
from hub.running.layerwise.subclass import grad_norm
from hub.running.steps import closure_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.optim import Optimizer


def clip_before_step(max_grad_norm: float) -> Callable[..., None]:
    """Return a step pre-hook that clips the total norm of an optimizer's gradients."""

    def clip(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if closure_of(args, kwargs) is not None:
            raise UnsupportedError(
                "max_grad_norm cannot clip gradients that a closure computes inside the step",
                where="max_grad_norm",
                fix="clip in the closure, and build without max_grad_norm",
            )
        parameters = list(chain.from_iterable(group["params"] for group in optimizer.param_groups))
        scale = getattr(optimizer, "grad_scale", None)
        if scale is None:
            torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
        else:
            # A GradScaler leaves unscaling to the step of a fused optimizer (torch 2.13,
            # `GradScaler.step`), which also skips the update after an overflow.
            norm = grad_norm(optimizer)
            norm = norm / scale.to(norm.device)
            torch.nn.utils.clip_grads_with_norm_(parameters, max_grad_norm, norm)

    return clip
