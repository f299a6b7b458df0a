"""Optimizers and schedules without a plugin: a class or factory, with arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from hub.errors import OptimArgsError
from hub.hookspecs import hookimpl
from hub.names.registry import Source
from hub.spec import MODES, OptimizerSpec, Sharding
from hub.text import shown

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from hub.names.registry import Plugin, Registry
    from hub.spec import BuildContext

OptimizerClass = tuple[Callable[..., Any], Mapping[str, Any]]
"""A class or factory, and its arguments after the first one."""


class _Signature(BaseModel):
    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True, protected_namespaces=())


class _Adopted:
    """The hooks of a plugin that offers one class or factory."""

    def __init__(self, factory: Callable[..., Any], spec: OptimizerSpec) -> None:
        self.factory = factory
        self.spec = spec

    @hookimpl
    def hub_register_optimizers(self) -> list[OptimizerSpec]:
        return [self.spec]

    @hookimpl
    def hub_build_optimizer(self, optim_args: BaseModel, context: BuildContext) -> Optimizer:
        optimizer: Optimizer = self.factory(context.param_groups(), **dict(optim_args))
        return optimizer


def adopt_class(given: object, registry: Registry) -> tuple[str, Plugin, Mapping[str, Any]]:
    """Return a name, a plugin and the arguments for an optimizer class or factory.

    Only its signature is known: it has no traits, any precision and device is allowed, and it
    steps the DTensors of FSDP2 itself.

    Raises:
        OptimArgsError: `given` is not a pair of a callable and a mapping.
    """
    factory, arguments = checked_pair(given, "optimizer")
    name = qualified_name(factory)
    package = name.partition(".")[0]
    model = arguments_from_signature(factory, arguments)
    spec = OptimizerSpec(
        name=name,
        summary=f"{name}, with the arguments of its signature",
        arguments=model,
        precisions=frozenset(MODES),
        devices=frozenset({"cpu", "cuda", "mps", "xpu"}),
        per_group=frozenset({"lr", "weight_decay"} & set(model.model_fields)),
        sharding=Sharding(kind="native"),
        package=package,
    )
    return name, registry.adopt(Source(package, name), _Adopted(factory, spec)), arguments


def checked_pair(given: object, where: str) -> OptimizerClass:
    """Check that a value is a class or factory with its arguments, and return both.

    Raises:
        OptimArgsError: It is anything else.
    """
    if isinstance(given, tuple) and len(given) == 2:  # noqa: PLR2004
        factory, arguments = given
        if callable(factory) and isinstance(arguments, Mapping):
            return factory, arguments
    raise OptimArgsError(
        f"{shown(given)} is not a valid {where}",
        where=where,
        fix="pass (class_or_factory, {argument: value})",
    )


def qualified_name(factory: Callable[..., Any]) -> str:
    """Return the dotted path of a class or function; of a `functools.partial`, the inner one's."""
    target = getattr(factory, "func", factory)
    named = target if hasattr(target, "__qualname__") else type(target)
    return f"{named.__module__}.{named.__qualname__}"


def arguments_from_signature(
    factory: Callable[..., Any], given: Mapping[str, Any]
) -> type[BaseModel]:
    """Return a pydantic model of a callable's keyword arguments, without its first argument.

    The callable checks the values itself. If it takes any keyword, the given ones become fields.

    Raises:
        OptimArgsError: Its signature cannot be read, as with some builtins.
    """
    try:
        parameters = list(inspect.signature(factory).parameters.values())[1:]
    except ValueError as error:
        raise OptimArgsError(
            f"the signature of {qualified_name(factory)} cannot be read: {error}",
            where=qualified_name(factory),
            fix="pass a function that calls it",
        ) from error
    named = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    fields: dict[str, Any] = {
        parameter.name: (
            Any,
            Field() if parameter.default is Parameter.empty else parameter.default,
        )
        for parameter in parameters
        if parameter.kind in named
    }
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters):
        fields = {**{key: (Any, Field()) for key in given}, **fields}
    return create_model("Signature", __base__=_Signature, **fields)
