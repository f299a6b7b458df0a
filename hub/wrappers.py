"""Seeing through what trainers wrap an optimizer in."""

from __future__ import annotations

from typing import Any

import torch

from hub.errors import HubError


def unwrapped(optimizer: Any) -> Any:
    """Return the optimizer inside; Accelerate, for one, keeps it in `.optimizer`."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def as_optimizer(given: Any, where: str) -> Any:
    """Return the optimizer inside of what the caller was given.

    Raises:
        HubError: There is none.
    """
    inner = unwrapped(given)
    if not isinstance(inner, torch.optim.Optimizer):
        raise HubError(
            f"{type(given).__name__} is no optimizer",
            where=where,
            fix="pass what hub.build returned, or what a trainer wrapped it in",
        )
    return inner
