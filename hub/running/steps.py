"""Helpers around an optimizer's `step`: the optimizer inside a wrapper, its closure, its groups."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hub.errors import HubError
from hub.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterator


def unwrapped(optimizer: Any) -> Any:
    """Return the optimizer inside a wrapper, such as Accelerate's, which has it in `.optimizer`.

    Raises:
        HubError: It is not an optimizer.
    """
    inner = optimizer
    while hasattr(inner, "optimizer"):
        inner = inner.optimizer
    if not isinstance(getattr(inner, "param_groups", None), list):
        raise HubError(
            f"{shown(optimizer)} is not an optimizer",
            where="optimizer",
            fix="pass what hub.build returned, or another torch optimizer",
        )
    return inner


def closure_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the closure passed to `step`, from the arguments of a step pre-hook.

    torch 2.13 passes the optimizer itself as the first of these arguments.
    """
    return args[1] if len(args) > 1 else kwargs.get("closure")


@contextmanager
def only(optimizer: Any, groups: list[dict[str, Any]]) -> Iterator[None]:
    """Temporarily restrict the optimizer to these groups."""
    whole = optimizer.param_groups
    optimizer.param_groups = groups
    try:
        yield
    finally:
        optimizer.param_groups = whole
