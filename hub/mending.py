"""What several plugins mend in the classes they build, for their factories to call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from hub.stepping import closure_of

if TYPE_CHECKING:
    from torch.optim import Optimizer


def enable_grad_in_closures(optimizer: Optimizer) -> None:
    """Let a closure call `backward()` where the class's `step` calls it with gradients disabled.

    galore_torch 1.0 and apollo_torch 1.0.3 do that.
    """
    optimizer.register_step_pre_hook(_with_grad)


def _with_grad(
    optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    closure = closure_of(args, kwargs)
    if closure is None:
        return None
    return (optimizer, torch.enable_grad()(closure)), {}
