"""Split parameters into groups, by weight decay, rule and low-rank training."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hub.arguments.patterns import closest_names, name_matcher
from hub.arguments.resolve import validate_arguments
from hub.arguments.values import as_tuples, is_number
from hub.errors import OptimArgsError, TargetModulesError
from hub.groups.flat import original_shapes
from hub.groups.modules import is_norm
from hub.groups.walk import walk_of
from hub.plans import PlannedGroup, PlannedParameter
from hub.spec import Trait, dtype_name
from hub.text import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import BaseModel
    from torch.nn import Module, Parameter

    from hub.spec import OptimizerSpec

_Key = tuple[int, bool, bool, bool]
"""The number of its rule, and whether it is low-rank, not decayed, and not sharded."""
Named = Sequence[tuple[str, "Parameter"]]
RulePair = tuple[str, Mapping[str, Any]]
Rules = Mapping[str, Mapping[str, Any]] | Sequence[RulePair]

# The names that Transformers' Trainer never decays (trainer_pt_utils.py and trainer.py, 5.23,
# `get_decay_parameter_names`), so that both split a model the same way.
_NO_DECAY_NAME = re.compile(
    r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)", re.IGNORECASE
)


@dataclass(frozen=True)
class _Rule:
    pattern: str
    matches: Callable[[str], bool]
    overrides: dict[str, Any]


@dataclass
class _Draft:
    """A group while parameters are still being added to it."""

    rule: _Rule | None
    low_rank: bool
    decayed: bool
    sharded: bool
    parameters: list[PlannedParameter] = field(default_factory=list)


def split_into_groups(
    model: Module,
    spec: OptimizerSpec,
    arguments: BaseModel,
    *,
    trainable: Named,
    low_rank: set[Parameter],
    param_rules: Rules | None = None,
    why: Mapping[str, str] | None = None,
) -> tuple[PlannedGroup, ...]:
    """Assign every trainable parameter to exactly one group, in a deterministic order.

    Groups without a rule come first, then those of each rule in order; plain groups before
    low-rank ones; decayed groups before the others. Within a group, parameters keep the model's
    order. Biases, norm layers, parameters of fewer than two dimensions and those named by
    `no_weight_decay()` of the model or one of its modules are never decayed.

    Parameters that FSDP2 leaves out (`ignored_params`) are in separate groups if each is updated
    independently: torch's foreach and fused updates (2.13, pytorch issue 183207) take no plain
    tensors and DTensors together.

    Args:
        model: The model.
        spec: The optimizer.
        arguments: Its arguments.
        trainable: The names and parameters to split, in the model's order.
        low_rank: The weights to train in low rank.
        param_rules: As for `hub.build`.
        why: Why decayed parameters are here, by name.

    Raises:
        TargetModulesError: A rule selects nothing: no parameter matches, or earlier rules have
            matched them all.
        OptimArgsError: A rule sets an argument that cannot be set per group, or a wrong value.
    """
    rules = [_rule(item, spec, arguments) for item in rule_pairs(param_rules)]
    reasons, shapes = _no_decay_reasons(model), original_shapes(model)
    separable = Trait.PER_PARAMETER in spec.traits
    drafts: dict[_Key, _Draft] = {}
    for name, parameter in trainable:
        index = next((i for i, rule in enumerate(rules) if rule.matches(name)), -1)
        shape = shapes.get(id(parameter), tuple(parameter.shape))
        exempt = reasons.get(name) or no_decay_by_name_or_shape(name, shape)
        sharded = separable and hasattr(parameter, "device_mesh")
        key = (index, parameter in low_rank, exempt is not None, not sharded)
        draft = drafts.setdefault(
            key, _Draft(rules[index] if index >= 0 else None, key[1], not exempt, sharded)
        )
        reason = exempt or (why or {}).get(name, "weight")
        draft.parameters.append(PlannedParameter(name, shape, dtype_name(parameter.dtype), reason))
    check_all_used(
        [rule.pattern for rule in rules],
        {index for index, *_ in drafts},
        [name for name, _ in trainable],
    )
    return tuple(
        _group(drafts[key], spec, arguments, mixed=(*key[:-1], False) in drafts)
        for key in sorted(drafts)
    )


def _no_decay_reasons(model: Module) -> dict[str, str]:
    """Return, by parameter name, why modules exempt parameters from decay, in one walk."""
    reasons: dict[str, str] = {}
    walk = walk_of(model)
    plain = walk.plain
    # Reading what a module lacks is slow (torch 2.13, `Module.__getattr__`).
    declaring = {cls for cls in walk.classes if hasattr(cls, "no_weight_decay")}
    for prefix, module in walk.modules:
        dot, norm = f"{prefix}." if prefix else "", is_norm(module)
        for name, parameter in module._parameters.items():  # noqa: SLF001 - as in `Walk`
            if norm:
                reasons[plain(dot + name)] = f"norm ({type(module).__name__})"
            elif getattr(parameter, "_no_weight_decay", False):
                reasons[plain(dot + name)] = "marked _no_weight_decay"
        is_declared = type(module) in declaring or "no_weight_decay" in vars(module)
        declared = module.no_weight_decay if is_declared else None
        for name in declared() if callable(declared) else ():
            reasons[plain(dot + name)] = "no_weight_decay()"
    return reasons


def no_decay_by_name_or_shape(name: str, shape: Sequence[int]) -> str | None:
    """Return why a parameter is not decayed, as far as its name and shape show it."""
    if _NO_DECAY_NAME.search(name):
        return "bias or norm, by name"
    return f"{len(shape)}-D" if len(shape) < 2 else None  # noqa: PLR2004


def rule_pairs(param_rules: Any) -> list[RulePair]:
    """Return parameter rules as pairs of a pattern and its arguments.

    Raises:
        OptimArgsError: They are something else.
    """
    rules = as_tuples(param_rules)
    pairs = tuple(rules.items()) if isinstance(rules, dict) else rules
    for pair in () if pairs is None else pairs if isinstance(pairs, tuple) else (pairs,):
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], dict)):  # noqa: PLR2004
            raise OptimArgsError(
                f"{shown(pair)} is not a parameter rule",
                where="param_rules",
                fix='write {"pattern": {"lr": 1e-4}} or [("pattern", {"weight_decay": 0.0})]',
            )
    return list(pairs or ())


def _rule(item: RulePair, spec: OptimizerSpec, arguments: BaseModel) -> _Rule:
    pattern, overrides = item
    where = f"param_rules {shown(pattern)}"
    values = dict(overrides)
    scale = values.pop("lr_scale", None)
    if scale is not None:
        base = getattr(arguments, "lr", None)
        if "lr" in values or base is None or not is_number(scale):
            raise OptimArgsError(
                f"lr_scale={shown(scale)} cannot be applied",
                where=where,
                fix="use a number, an optimizer with an lr, and no lr in the same rule",
            )
        values["lr"] = base * scale
    unknown = [key for key in overrides if key not in _settable(spec)]
    if unknown or not values:
        raise OptimArgsError(
            f"{spec.name} cannot set '{unknown[0]}' per parameter group"
            if unknown
            else "the rule sets nothing",
            where=where,
            fix=_what_a_rule_sets(spec),
        )
    checked = validate_arguments(spec.name, type(arguments), {**dict(arguments), **values})
    return _Rule(
        pattern, name_matcher(pattern, where), {key: getattr(checked, key) for key in values}
    )


def _settable(spec: OptimizerSpec) -> set[str]:
    """Return the keys that a rule may set; `lr_scale` needs a learning rate per group."""
    return {*spec.per_group} | ({"lr_scale"} if "lr" in spec.per_group else set())


def _what_a_rule_sets(spec: OptimizerSpec) -> str:
    keys = sorted(_settable(spec))
    return f"a rule sets {', '.join(keys)}" if keys else "leave param_rules out"


def check_all_used(patterns: Sequence[str], used: Collection[int], names: Sequence[str]) -> None:
    """Check that each rule is the first to match some parameter.

    Args:
        patterns: Of all rules, in order.
        used: The numbers of the rules that are.
        names: Of all parameters.

    Raises:
        TargetModulesError: One is not; the error has the closest names.
    """
    for index, pattern in enumerate(patterns):
        if index in used:
            continue
        where = f"param_rules {pattern!r}"
        shadowed = any(map(name_matcher(pattern, where), names))
        raise TargetModulesError(
            f"the parameter rule {pattern!r} "
            + ("is shadowed by earlier rules" if shadowed else "matches no parameter"),
            where=where,
            fix="put it first; the first match wins" if shadowed else closest_names(pattern, names),
        )


def _group(
    draft: _Draft, spec: OptimizerSpec, arguments: BaseModel, *, mixed: bool
) -> PlannedGroup:
    overrides = dict(draft.rule.overrides) if draft.rule else {}
    decays = "weight_decay" in type(arguments).model_fields and "weight_decay" in spec.per_group
    if decays and not draft.decayed:
        overrides["weight_decay"] = 0.0
    parts = [
        *([draft.rule.pattern] if draft.rule else []),
        *(["low_rank"] if draft.low_rank else []),
        "decay" if draft.decayed else "no_decay",
        *(["unsharded"] if mixed and not draft.sharded else []),
    ]
    return PlannedGroup(
        name=".".join(parts),
        overrides=overrides,
        parameters=tuple(draft.parameters),
        low_rank=draft.low_rank,
        rule=draft.rule.pattern if draft.rule else None,
    )
