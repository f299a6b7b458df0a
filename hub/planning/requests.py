"""Read which optimizers a build asks for: the name itself, its `rest`, and those of rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hub.arguments.grammar import parse_arguments
from hub.arguments.resolve import as_mapping
from hub.errors import OptimArgsError
from hub.groups.split import rule_pairs
from hub.names.rest import REST, without_rest
from hub.planning.found import find_optimizer
from hub.planning.routing import OPTIMIZER, Branch, Request, Router
from hub.spec import Trait

if TYPE_CHECKING:
    from hub.groups.split import RulePair
    from hub.names.registry import Registry
    from hub.planning.call import BuildCall, OptimArgs
    from hub.planning.found import Found

_TARGETS = "target_modules"


def read_requests(call: BuildCall, found: Found, registry: Registry) -> Router | None:
    """Return what assigns parameters to optimizers, or None if a single one trains all of them.

    Raises:
        UnknownOptimizerError: A rule or `rest` names an unknown optimizer.
        OptimArgsError: A rule or `rest` is malformed.
    """
    pairs = rule_pairs(call.param_rules)
    if Trait.MATRICES_ONLY not in found.spec.traits and not any(OPTIMIZER in r for _, r in pairs):
        return None
    base = Request("", found, call.hyperparameters, call.target_modules)
    return Router(
        _branch(base, registry),
        [(pair, _branch_of_rule(pair, registry)) for pair in pairs],
    )


def _branch_of_rule(pair: RulePair, registry: Registry) -> Branch | None:
    pattern, overrides = pair
    if OPTIMIZER not in overrides:
        return None
    values = {key: value for key, value in overrides.items() if key not in (OPTIMIZER, _TARGETS)}
    request = _request(pattern, overrides, values, registry)
    return _branch(request, registry)


def _request(
    label: str, given: Mapping[str, Any], values: Mapping[str, Any], registry: Registry
) -> Request:
    found = find_optimizer(given[OPTIMIZER], dict(values) or None, registry)
    return Request(label, found, {}, given.get(_TARGETS))


def _branch(own: Request, registry: Registry) -> Branch:
    """Return a request with that for its rest, whose arguments are taken out of its own."""
    if not own.matrices_only:
        return Branch(own)
    spec = own.found.spec
    asked, rest_asked = without_rest(spec.name, _asked(own.found))
    keywords, rest_keywords = without_rest(spec.name, own.hyperparameters)
    twice = sorted(rest_asked.keys() & rest_keywords.keys())
    if twice:
        raise OptimArgsError(
            f"'{REST}.{twice[0]}' is given twice",
            where=f"{REST} of {spec.name}",
            fix="remove one of them",
        )
    given = {OPTIMIZER: registry.rest_of(spec).name, **rest_asked, **rest_keywords}
    values = {key: value for key, value in given.items() if key not in (OPTIMIZER, _TARGETS)}
    rest = _request(f"{own.label}.{REST}".removeprefix("."), given, values, registry)
    if rest.matrices_only:
        raise OptimArgsError(
            f"{rest.found.spec.name} leaves parameters to a rest itself",
            where=f"{REST}.{OPTIMIZER} of {spec.name}",
            fix=f"choose one that trains all parameters, such as {spec.rest}",
        )
    found = own.found._replace(optim_args=asked)
    return Branch(Request(own.label, found, keywords, own.target_modules), rest)


def own_arguments(found: Found) -> OptimArgs:
    """Return the `optim_args` of an optimizer, without those of its rest."""
    if Trait.MATRICES_ONLY not in found.spec.traits:
        return found.optim_args
    return without_rest(found.spec.name, _asked(found))[0]


def _asked(found: Found) -> dict[str, Any]:
    given = found.optim_args
    given = parse_arguments(given) if isinstance(given, str) else given
    return as_mapping(found.spec.name, "optim_args", given)
