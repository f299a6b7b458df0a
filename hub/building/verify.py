"""Check what a plugin's factory returns against the plan, at every build: P1, P3 and P4."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim import Optimizer

from hub.errors import PluginError, for_author
from hub.text import shape_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hub.planning.single import Prepared
    from hub.spec import ParameterGroup

ROUNDING = 1e-6
"""Relative error of a learning rate that is kept in an fp32 tensor."""


def verified(optimizer: object, prepared: Prepared) -> Optimizer:
    """Return what a factory built, if it is the planned optimizer.

    That is a torch optimizer over exactly the planned parameters, in the planned order, whose
    groups have the planned names and values.

    Raises:
        PluginError: It is not; the error has the group, the key and both values, or the parameter.
    """
    if not isinstance(optimizer, Optimizer):
        kind = "nothing" if optimizer is None else f"a {type(optimizer).__name__}"
        raise _error(prepared, f"returned {kind}, not a torch.optim.Optimizer")
    problem = _problem_of_order(optimizer, prepared)
    if not problem:
        problem = next(_problems_of_groups(optimizer, prepared), "")
    if problem:
        raise _error(prepared, problem)
    return optimizer


def _problem_of_order(optimizer: Optimizer, prepared: Prepared) -> str:
    planned = [pair for group in prepared.context.groups for pair in group.parameters]
    names = {id(parameter): name for name, parameter in planned}
    found = list(chain.from_iterable(group["params"] for group in optimizer.param_groups))
    for place, parameter in enumerate(found):
        if id(parameter) not in names:
            shape = shape_text(parameter.shape)
            return f"added a parameter of shape {shape} that is not in the plan"
        if place >= len(planned) or parameter is not planned[place][1]:
            wanted = f"has '{planned[place][0]}'" if place < len(planned) else "ends"
            return (
                f"changed the order: '{names[id(parameter)]}' is at position {place}, where the "
                f"plan {wanted}"
            )
    if len(found) < len(planned):
        return f"left out '{planned[len(found)][0]}'"
    return ""


def _problems_of_groups(optimizer: Optimizer, prepared: Prepared) -> Iterator[str]:
    planned = {
        id(parameter): (name, group)
        for group in prepared.context.groups
        for name, parameter in group.parameters
    }
    for index, group in enumerate(optimizer.param_groups):
        members = [planned[id(parameter)] for parameter in group["params"]]
        label = group.get("name", index)
        names = [name for name, _ in members]
        if "name" not in group or list(group.get("param_names", ())) != names:
            yield f"lost name or param_names of group {label!r}: {names[:3]}"
        for of in {id(plan): plan for _, plan in members}.values():
            yield from _differences(label, group, of, prepared)


def _differences(
    label: object, group: dict[str, Any], planned: ParameterGroup, prepared: Prepared
) -> Iterator[str]:
    spec = prepared.spec
    # A factory may derive more from a group's own rate, as hub-optimi does its `max_lr`.
    keys = spec.per_group & {"lr", "weight_decay"} if "lr" in planned.overrides else spec.per_group
    wanted = {key: getattr(prepared.optim_args, key, None) for key in keys}
    wanted = {**wanted, **planned.overrides}
    if bool(group.get("low_rank")) != planned.low_rank:
        yield _difference(label, "low_rank", bool(group.get("low_rank")), planned.low_rank)
    for key, value in wanted.items():
        if value is None or (key not in group and key not in ("lr", "weight_decay")):
            continue  # the optimizer fills in None, and not all groups have all keys
        values = [value, *(_other_rates(prepared, value) if key == "lr" else ())]
        if not any(_same(group.get(key), value) for value in values):
            yield _difference(label, key, group.get(key), value)


def _other_rates(prepared: Prepared, lr: Any) -> list[float]:
    """Return the other rates that a group may have, scaled as its rule scales `lr`."""
    arguments: Any = prepared.optim_args
    if not prepared.spec.other_rates:
        return []
    scale = lr / arguments.lr if arguments.lr else 1.0
    return [getattr(arguments, key) * scale for key in prepared.spec.other_rates]


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(found, Tensor):
        return found.numel() == 1 and abs(float(found) - wanted) <= ROUNDING * abs(wanted)
    if isinstance(wanted, tuple):
        return isinstance(found, tuple | list) and tuple(found) == wanted
    return bool(found == wanted)


def _difference(label: object, key: str, found: Any, wanted: Any) -> str:
    return f"gave group {label!r} {key}={found!r}, where the plan has {wanted!r}"


def _error(prepared: Prepared, problem: str) -> PluginError:
    plan = prepared.plan
    return PluginError(
        f"the factory of {plan.optimizer} {problem}",
        where=prepared.plugin.source.module,
        fix=for_author("build from context.param_groups(), unchanged", plan.distribution),
        plugin=plan.distribution,
    )
