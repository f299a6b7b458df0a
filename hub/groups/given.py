"""Parameter groups made by others, such as a subclass of a Trainer."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from torch.nn import Module, Parameter, ParameterList

from hub.arguments.resolve import validate_arguments
from hub.errors import HubError, OptimArgsError, TargetModulesError, UnsupportedError
from hub.groups.flat import original_shapes
from hub.groups.modules import names_by_id
from hub.plans import PlannedGroup, PlannedParameter
from hub.spec import Trait, dtype_name

if TYPE_CHECKING:
    from pydantic import BaseModel

    from hub.spec import OptimizerSpec

_OWN_KEYS = ("params", "param_names", "name")
_FIX = 'pass parameters, or groups such as [{"params": [...], "lr": 1e-4}]'


@dataclass(frozen=True)
class _Group:
    name: str
    parameters: tuple[tuple[str, Parameter], ...]
    overrides: Mapping[str, Any]


@dataclass(frozen=True)
class GivenGroups:
    """Groups that replace hub's own, and the model whose parameters they hold."""

    model: Module
    groups: tuple[_Group, ...]

    @property
    def trainable(self) -> list[tuple[str, Parameter]]:
        """The names and parameters of all groups."""
        return [pair for group in self.groups for pair in group.parameters]

    def only(self, named: Iterable[tuple[str, Parameter]]) -> GivenGroups:
        """Return the groups with some of their parameters, without those that become empty."""
        kept = {name for name, _ in named}
        groups = (
            replace(group, parameters=tuple(pair for pair in group.parameters if pair[0] in kept))
            for group in self.groups
        )
        return replace(self, groups=tuple(group for group in groups if group.parameters))

    def split(
        self, spec: OptimizerSpec, arguments: BaseModel, *, low_rank: set[Parameter]
    ) -> tuple[PlannedGroup, ...]:
        """Return the groups as given, with low-rank targets in separate groups.

        Raises:
            OptimArgsError: A group sets an argument that cannot be set per group, or a wrong value.
            TargetModulesError: The optimizer has low-rank groups, but no group has a target.
        """
        shapes = original_shapes(self.model)
        planned = tuple(
            part
            for group in self.groups
            for part in _planned(group, spec, arguments, low_rank, shapes)
        )
        if low_rank and not any(group.low_rank for group in planned):
            raise TargetModulesError(
                "the parameter groups hold none of the target modules' weights",
                where="target_modules",
                fix="add them to a group, or choose an optimizer without low-rank groups",
            )
        return planned


def read_given_groups(
    params: object, spec: OptimizerSpec, model: Module | None = None
) -> GivenGroups:
    """Read what `torch.optim.Optimizer` takes as `params`, and name every parameter.

    Args:
        params: Parameters, pairs of a name and a parameter, or groups of either. Frozen parameters
            and empty groups are left out.
        spec: The optimizer.
        model: Where names and kinds of layers are looked up. Parameters that it does not own are
            named by position, like those of `add_param_group`.

    Raises:
        OptimArgsError: `params` is something else, or has a parameter or a name twice.
        TargetModulesError: The optimizer projects linear layers, and `model` is None.
        UnsupportedError: The optimizer switches a model's weights, and `model` is None.
        HubError: There is nothing to train.
    """
    _check_needs(spec, model)
    known = {} if model is None else names_by_id(model)
    groups = tuple(
        _read_group(group, number, known) for number, group in enumerate(as_groups(params))
    )
    kept = tuple(group for group in groups if group.parameters)
    if not kept:
        raise HubError("the parameter groups hold nothing to train", where="params", fix=_FIX)
    names, parameters = zip(*(pair for group in kept for pair in group.parameters), strict=True)
    check_once([id(parameter) for parameter in parameters], "a parameter")
    check_once(names, "a parameter's name")
    check_once([group.name for group in kept], "a group's name")
    return GivenGroups(ParameterList(parameters) if model is None else model, kept)


def _check_needs(spec: OptimizerSpec, model: Module | None) -> None:
    """Refuse an optimizer that needs the model if there is none."""
    if model is not None:
        return
    if Trait.LOW_RANK in spec.traits:
        raise TargetModulesError(
            f"{spec.name} finds its target modules in the model, but got only parameter groups",
            where="params",
            fix="pass the model instead of groups",
        )
    if Trait.TRAIN_EVAL_MODES in spec.traits:
        raise UnsupportedError(
            f"{spec.name} switches the model to other weights for evaluation, but got only "
            "parameter groups",
            where="params",
            fix="pass the model instead of groups",
        )


def check_once(things: Collection[object], what: str) -> None:
    """Raise `OptimArgsError` if something is there twice."""
    if len(set(things)) < len(things):
        raise OptimArgsError(
            f"{what} is in the groups twice",
            where="params",
            fix="remove one of them, or rename it",
        )


def as_groups(params: object) -> list[dict[str, Any]]:
    """Return `params` as groups; parameters without groups become one.

    Raises:
        OptimArgsError: It is neither.
    """
    if isinstance(params, Mapping):
        params = [params]
    if isinstance(params, Parameter | str) or not isinstance(params, Iterable):
        raise _not_a_group(params)
    items = list(params)
    if not any(isinstance(item, Mapping) for item in items):
        items = [{"params": items}]
    for item in items:
        if not (isinstance(item, Mapping) and "params" in item):
            raise _not_a_group(item)
    return [dict(item) for item in items]


def _read_group(group: dict[str, Any], number: int, known: Mapping[int, str]) -> _Group:
    parameters = tuple(
        (name or known.get(id(parameter), f"added.{number}.{index}"), parameter)
        for index, (name, parameter) in enumerate(named_pairs(group))
        if parameter.requires_grad
    )
    overrides = {key: value for key, value in group.items() if key not in _OWN_KEYS}
    return _Group(str(group.get("name", f"given.{number}")), parameters, overrides)


def named_pairs(group: Mapping[str, Any]) -> Iterator[tuple[str | None, Parameter]]:
    """Yield the parameters of a group with the names it has for them.

    Raises:
        OptimArgsError: Something in it is not a parameter.
    """
    items, names = _as_list(group["params"]), _as_list(group.get("param_names") or ())
    if len(names) == len(items):
        items = list(zip(names, items, strict=True))
    for item in items:
        name, parameter = item if isinstance(item, tuple) and len(item) == 2 else (None, item)  # noqa: PLR2004
        if not (isinstance(parameter, Parameter) and isinstance(name, str | None)):
            raise _not_a_group(item)
        yield name, parameter


def _as_list(value: object) -> list[Any]:
    if isinstance(value, Parameter):
        return [value]
    if not isinstance(value, Iterable):
        raise _not_a_group(value)
    return list(value)


def _planned(
    group: _Group,
    spec: OptimizerSpec,
    arguments: BaseModel,
    low_rank: set[Parameter],
    shapes: Mapping[int, tuple[int, ...]],
) -> list[PlannedGroup]:
    unknown = [key for key in group.overrides if key not in spec.per_group]
    if unknown:
        raise OptimArgsError(
            f"{spec.name} cannot set '{unknown[0]}' per parameter group",
            where=f"parameter group '{group.name}'",
            fix=f"a group sets {', '.join(sorted(spec.per_group))}",
        )
    checked = validate_arguments(spec.name, type(arguments), {**dict(arguments), **group.overrides})
    overrides = {key: getattr(checked, key) for key in group.overrides}
    parts = []
    separable = Trait.PER_PARAMETER in spec.traits
    mixed = separable and len({_is_sharded(parameter) for _, parameter in group.parameters}) > 1
    kinds = product((False, True), (True, False) if mixed else (None,))
    for is_low_rank, sharded in kinds:
        chosen = [
            (name, parameter)
            for name, parameter in group.parameters
            if (parameter in low_rank) is is_low_rank and sharded in (None, _is_sharded(parameter))
        ]
        if chosen:
            name = group.name + ".low_rank" * is_low_rank + ".unsharded" * (sharded is False)
            parameters = _planned_parameters(chosen, shapes)
            parts.append(PlannedGroup(name, overrides, parameters, is_low_rank))
    return parts


def _is_sharded(parameter: Parameter) -> bool:
    return hasattr(parameter, "device_mesh")


def _planned_parameters(
    pairs: Iterable[tuple[str, Parameter]], shapes: Mapping[int, tuple[int, ...]]
) -> tuple[PlannedParameter, ...]:
    return tuple(
        PlannedParameter(name, shapes.get(id(p), tuple(p.shape)), dtype_name(p.dtype), "as given")
        for name, p in pairs
    )


def _not_a_group(thing: object) -> OptimArgsError:
    return OptimArgsError(
        f"a {type(thing).__name__} is not a parameter group", where="params", fix=_FIX
    )
