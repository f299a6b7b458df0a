"""Seeing through what trainers wrap an optimizer in."""

from __future__ import annotations

from typing import Any


def unwrapped(optimizer: Any) -> Any:
    """Return the optimizer inside; Accelerate, for one, keeps it in `.optimizer`."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer
