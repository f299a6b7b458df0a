"""Check the specs and hooks of a plugin when it is loaded."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from hub.errors import PluginError, for_author
from hub.spec import Trait

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pluggy import HookRelay

    from hub.spec import OptimizerSpec, SchedulerSpec

PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
"""A `factory` path: a module, a colon and a dotted attribute of it."""
USUAL = frozenset({"lr", "weight_decay"})
"""The default of `per_group`, valid even for an optimizer without these arguments."""


def check_optimizer_spec(spec: OptimizerSpec, distribution: str) -> None:
    """Check that a spec's keys are its arguments, and that `low_rank` comes with the trait.

    Arguments must take what the ranges in which they are tuned begin and end with.

    Raises:
        PluginError: One is not; the error has the spec, the field and the nearest argument.
    """
    if spec.low_rank and Trait.LOW_RANK not in spec.traits:
        raise PluginError(
            f"low_rank of '{spec.name}' has no effect: the optimizer has no low-rank groups",
            where="OptimizerSpec.low_rank",
            fix=for_author("add Trait.LOW_RANK to its traits", distribution),
            plugin=distribution,
        )
    beside = {
        key
        for contrasts in spec.contrasts.values()
        for contrast in contrasts
        for key in (*contrast.base, *contrast.other)
    }
    for field, keys in (
        ("per_group", spec.per_group - USUAL),
        ("example_arguments", spec.example_arguments),
        ("state_arguments", spec.state_arguments),
        ("low_rank", spec.low_rank),
        ("other_rates", spec.other_rates),
        ("contrasts", {*spec.contrasts, *beside}),
        ("without_effect", spec.without_effect),
    ):
        _check_keys(spec, field, keys, distribution)
    _check_ranges(spec, distribution)


def _check_ranges(spec: OptimizerSpec, distribution: str) -> None:
    from hub.arguments.search import refused  # the plugin has imported pydantic by now

    for key, value, reason in refused(spec.arguments):
        raise PluginError(
            f"'{key}' of '{spec.name}' refuses {value}, an end of its Search: {reason}",
            where=f"{spec.arguments.__name__}.{key}",
            fix=for_author("change the Search, or the argument's bounds", distribution),
            plugin=distribution,
        )


def check_builds(spec: OptimizerSpec, hooks: HookRelay, distribution: str) -> None:
    """Check that a plugin can build an optimizer.

    Raises:
        PluginError: The spec's factory is not a path, or there is neither a factory nor a hook.
    """
    if spec.factory and not PATH.fullmatch(spec.factory):
        what = f"factory of '{spec.name}' is {spec.factory!r}, which does not name a callable"
    elif not spec.factory and not hooks.hub_build_optimizer.get_hookimpls():
        what = f"nothing builds '{spec.name}'"
    else:
        return
    raise PluginError(
        what,
        where="OptimizerSpec.factory",
        fix=for_author(
            'set factory="package.module:Class", or implement hub_build_optimizer', distribution
        ),
        plugin=distribution,
    )


def check_scheduler_spec(spec: SchedulerSpec, distribution: str) -> None:
    """Check that the keys of a schedule's spec are its arguments; raise likewise."""
    _check_keys(spec, "example_arguments", spec.example_arguments, distribution)


def _check_keys(
    spec: OptimizerSpec | SchedulerSpec, field: str, keys: Iterable[str], distribution: str
) -> None:
    known = list(spec.arguments.model_fields)
    for key in sorted(set(keys) - set(known)):
        near = get_close_matches(key, known, n=1, cutoff=0.0)
        advice = f"write '{near[0]}'" if near else "leave it out: it has no arguments"
        raise PluginError(
            f"{field} of '{spec.name}' has '{key}', which is not one of its arguments",
            where=f"{type(spec).__name__}.{field}",
            fix=for_author(advice, distribution),
            plugin=distribution,
        )


def check_hooks_are_marked(hooks: Any, specs: Mapping[str, Any], distribution: str) -> None:
    """Check that every function named like a hook is marked as one.

    Raises:
        PluginError: One is not, and would never be called.
    """
    for name in specs:
        function = getattr(hooks, name, None)
        marked = hasattr(function, "hub_impl") or hasattr(function, "hub_spec")
        if name.startswith("hub_") and callable(function) and not marked:
            raise PluginError(
                f"{name} is not marked as a hook, so hub does not call it",
                where=getattr(hooks, "__name__", type(hooks).__name__),
                fix=for_author("put @hub.hookimpl above it", distribution),
                plugin=distribution,
            )
