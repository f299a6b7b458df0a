"""Parameters without their model: what their names and shapes show about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.nn import Module, Parameter, ParameterList

from hub.errors import HubError, OptimArgsError
from hub.groups.flat import is_fsdp1_piece
from hub.groups.given import GivenGroups, as_groups, check_once, named_pairs, read_given_groups
from hub.groups.modules import names_by_id
from hub.groups.stand_in import stand_in_of

if TYPE_CHECKING:
    from hub.spec import OptimizerSpec


@dataclass(frozen=True)
class FromParameters:
    """Parameters, in place of a model."""

    model: Module
    """A stand-in: what names and shapes show of the model, or a list of parameters."""
    named: bool
    """Whether the parameters have names."""
    given: GivenGroups | None
    """Their groups; None where hub makes them."""


def read_parameters(params: object, spec: OptimizerSpec) -> FromParameters:
    """Read what `torch.optim.Optimizer` takes as `params`, of a model that is not known.

    Groups stay as they are, one for one, because trainers find them by their number.

    Args:
        params: Parameters, pairs of a name and a parameter, or groups of either.
        spec: The optimizer.

    Raises:
        OptimArgsError: `params` is something else, has a parameter or a name twice, or has names
            for some of the parameters only.
        HubError: There is nothing to train.
    """
    if isinstance(params, Module):
        raise OptimArgsError(
            f"params is a model, a {type(params).__name__}",
            where="params",
            fix="pass model.named_parameters(), or call hub.build with the model",
        )
    if isinstance(params, Iterable) and not isinstance(params, Mapping | str | Parameter):
        params = list(params)
    groups = [(group, list(named_pairs(group))) for group in as_groups(params)]
    pairs = [pair for _, own in groups for pair in own]
    if not any(parameter.requires_grad for _, parameter in pairs):
        raise HubError(
            "none of the parameters is to be trained" if pairs else "there are no parameters",
            where="params",
            fix="pass parameters with requires_grad=True",
        )
    check_once([id(parameter) for _, parameter in pairs], "a parameter")
    model = _model(pairs)
    named = not isinstance(model, ParameterList)
    if isinstance(params, list) and not any(isinstance(item, Mapping) for item in params):
        _check_whole(pairs)
        return FromParameters(model, named, None)
    known = names_by_id(model)
    whole = [
        {**group, "params": [(known[id(p)], p) for _, p in own], "param_names": ()}
        for group, own in groups
    ]
    return FromParameters(model, named, read_given_groups(whole, spec, model))


def _model(pairs: list[tuple[str | None, Parameter]]) -> Module:
    """Return a model of named parameters, a list of parameters without names."""
    names = [name for name, _ in pairs if name is not None]
    if not names:
        return ParameterList([parameter for _, parameter in pairs])
    if len(names) < len(pairs):
        raise OptimArgsError(
            "some parameters have names, and others do not",
            where="params",
            fix="pass names for all of them, or for none",
        )
    check_once(names, "a parameter's name")
    return stand_in_of([(name, parameter) for name, parameter in pairs if name is not None])


def _check_whole(pairs: list[tuple[str | None, Parameter]]) -> None:
    """Refuse flat pieces, whose shapes do not show what decays."""
    for name, parameter in pairs:
        if is_fsdp1_piece(parameter) or getattr(parameter, "_is_flat_param", False):
            raise OptimArgsError(
                "FSDP1 holds the parameters as flat pieces, whose shapes show neither biases nor "
                "norms",
                where=name or "params",
                fix="call hub.build with the model, or pass groups with their weight_decay",
            )
