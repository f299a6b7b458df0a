"""Helpers around an optimizer's `step`: what is inside wrappers, its hooks, closure and groups."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from hub.errors import HubError
from hub.text import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


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


def members_of(optimizer: Any) -> tuple[Any, ...]:
    """Return the optimizers that share a model in this one, or it alone."""
    members: tuple[Any, ...] = getattr(optimizer, "hub_members", (optimizer,))
    return members


def named_group(group: dict[str, Any], names: Mapping[int, str], number: int) -> dict[str, Any]:
    """Return a parameter group with a list of parameters and one of their names.

    Args:
        group: As for `add_param_group`; torch validates the rest of it.
        names: By the identity of parameters; for others, names are made up.
        number: Of the group, for such names.
    """
    given = group["params"]
    params = [given] if isinstance(given, torch.Tensor) else list(given)
    if "param_names" in group:
        return {**group, "params": params}
    if any(isinstance(item, tuple) for item in params):
        pairs = {"params": [p for _, p in params], "param_names": [n for n, _ in params]}
        return {**group, **pairs}
    added = [names.get(id(item), f"added.{number}.{index}") for index, item in enumerate(params)]
    return {**group, "params": params, "param_names": added}


def subclass(methods: type, upstream: Any, **own: Any) -> Any:
    """Return a subclass of an optimizer's class, which its instances can become.

    For that the class has to be the only base: with another one first, Python refuses the instances
    of a class that derives from ABC before Optimizer, as its layout then differs.

    Args:
        methods: A subclass of Optimizer whose attributes the new one gets. Its methods call the
            optimizer's class as `self.hub_upstream`, because `super()` fails outside of it.
        upstream: The optimizer's class.
        own: Further attributes.
    """
    name = f"{methods.__name__}{upstream.__name__}"
    return type(name, (upstream,), {**vars(methods), **own, "hub_upstream": upstream})


def step_without_hooks(optimizer_class: Any) -> Callable[..., Any]:
    """Return the `step` of an optimizer's class, inside torch's wrapper that calls step hooks."""
    step: Callable[..., Any] = optimizer_class.step
    while hasattr(step, "hooked"):
        step = step.__wrapped__  # type: ignore[attr-defined]
    return step


def call_step_pre_hooks(optimizer: Any) -> None:
    """Call the hooks before a step, as torch's wrapper around `step` does (2.13)."""
    own = optimizer._optimizer_step_pre_hooks  # noqa: SLF001 - no public equivalent
    for hook in (*_global_optimizer_pre_hooks.values(), *own.values()):
        hook(optimizer, (optimizer,), {})


def call_step_post_hooks(optimizer: Any) -> None:
    """Call the hooks after a step, likewise."""
    own = optimizer._optimizer_step_post_hooks  # noqa: SLF001 - no public equivalent
    for hook in (*own.values(), *_global_optimizer_post_hooks.values()):
        hook(optimizer, (optimizer,), {})


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
