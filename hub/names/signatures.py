"""Arguments of a class or factory, as its signature has them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from inspect import Parameter
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SkipValidation, create_model

from hub.arguments.search import usual
from hub.errors import OptimArgsError

IMPLEMENTATION = dict.fromkeys(
    ("foreach", "fused", "capturable", "differentiable"), "selects an implementation"
)
"""The arguments with which torch's optimizers choose how to compute the same."""


class _Signature(BaseModel):
    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True, protected_namespaces=())


def qualified_name(factory: Callable[..., Any]) -> str:
    """Return the dotted path of a class or function; of a `functools.partial`, the inner one's."""
    target = getattr(factory, "func", factory)
    named = target if hasattr(target, "__qualname__") else type(target)
    return f"{named.__module__}.{named.__qualname__}"


def arguments_from_signature(
    factory: Callable[..., Any],
    given: Mapping[str, Any] = MappingProxyType({}),
    types: Mapping[str, Any] = MappingProxyType({}),
) -> type[BaseModel]:
    """Return a pydantic model of a callable's keyword arguments, without its first argument.

    The callable checks the values itself. If it takes any keyword, the given ones become fields.

    Args:
        factory: The callable.
        given: The arguments that it will be called with.
        types: Types by argument; others may be anything.

    Raises:
        OptimArgsError: Its signature cannot be read, as with some builtins.
    """
    parameters = list(_parameters(factory))
    named = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    fields: dict[str, Any] = {
        parameter.name: (
            types.get(parameter.name, Any),
            Field() if parameter.default is Parameter.empty else parameter.default,
        )
        for parameter in parameters
        if parameter.kind in named
    }
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters):
        fields = {**{key: (Any, Field()) for key in given}, **fields}
    return create_model("Signature", __base__=_Signature, **fields)


def types_of_texts(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return the types that decide what a text means, by argument: those of the defaults.

    A text stays a text where the default is one. Elsewhere it is read as a literal. A value has to
    be of the default's type, or None. Where the default is None, the callable checks the value.
    """
    return {parameter.name: _type_of_text(parameter) for parameter in _parameters(factory)}


def _type_of_text(parameter: Parameter) -> Any:
    default = parameter.default
    if isinstance(default, str):
        allows_none = "None" in str(parameter.annotation) or "Optional" in str(parameter.annotation)
        return Annotated[
            str, SkipValidation, AfterValidator(_text_or_none if allows_none else _text)
        ]
    if parameter.name in IMPLEMENTATION:
        return Annotated[bool | None, AfterValidator(_boolean_or_none)]
    for kinds, kind, check in _CHECKED:
        if isinstance(default, kinds):
            ranged = usual(parameter.name, kind, default)
            return Annotated[ranged, SkipValidation, AfterValidator(check)]
    return Any


def _text(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | tuple):
        raise ValueError("input should be a text")
    return value


def _text_or_none(value: Any) -> Any:
    return None if value is None else _text(value)


def _number_or_none(value: Any) -> Any:
    if isinstance(value, bool | str) or not (value is None or hasattr(value, "__float__")):
        raise ValueError("input should be a number")
    return value


def _boolean_or_none(value: Any) -> Any:
    if not isinstance(value, bool | None):
        raise ValueError("input should be True or False")  # noqa: TRY004 - for pydantic
    return value


def _tuple_or_none(value: Any) -> Any:
    if not isinstance(value, tuple | None):
        raise ValueError("input should be a tuple")  # noqa: TRY004 - likewise
    return value


_CHECKED: tuple[tuple[Any, Any, Callable[[Any], Any]], ...] = (
    (bool, bool, _boolean_or_none),
    ((int, float), float, _number_or_none),
    (tuple, tuple, _tuple_or_none),
)
"""Kinds of defaults, the type to show for each, and the check of other values."""


def _parameters(factory: Callable[..., Any]) -> list[Parameter]:
    """Return the parameters of a callable after the first one."""
    try:
        return list(inspect.signature(factory).parameters.values())[1:]
    except ValueError as error:
        raise OptimArgsError(
            f"the signature of {qualified_name(factory)} cannot be read: {error}",
            where=qualified_name(factory),
            fix="pass a function that calls it",
        ) from error
