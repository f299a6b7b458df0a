"""Seeing through what trainers wrap an optimizer in."""

from __future__ import annotations

from typing import Any

from hub.errors import HubError
from hub.printable import shown


def unwrapped(optimizer: Any) -> Any:
    """Return the optimizer inside; Accelerate, for one, keeps it in `.optimizer`.

    Raises:
        HubError: There is none.
    """
    inner = optimizer
    while hasattr(inner, "optimizer"):
        inner = inner.optimizer
    if not isinstance(getattr(inner, "param_groups", None), list):
        raise HubError(
            f"{shown(optimizer)} is no optimizer",
            where="optimizer",
            fix="give what hub.build returned, or another torch optimizer",
        )
    return inner
