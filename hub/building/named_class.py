"""The classes of `hub.optim`."""

from __future__ import annotations

from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any, NoReturn, get_type_hints

from torch.optim import Optimizer

from hub.building.from_parameters import OPTIONS, build_from_parameters
from hub.errors import UnknownOptimizerError, UnsupportedError
from hub.names.registry import default_registry
from hub.names.rest import REST
from hub.spec import Trait

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hub.spec import OptimizerSpec

_TYPES: dict[str, Any] = {
    "params": Any,
    REST: dict[str, Any],
    "target_modules": str | list[str] | None,
    "param_rules": dict[str, dict[str, Any]] | None,
    "precision": str | None,
    "gradient_accumulation_steps": int,
    "max_grad_norm": float | None,
}
_MEANINGS = {
    "params": "Parameters, named parameters, or groups of either.",
    REST: "Arguments of the optimizer of all other parameters; `optimizer` names another one.",
    **dict.fromkeys(OPTIONS, "As for `hub.build`."),
}


class NoSuchOptimizerError(UnknownOptimizerError, AttributeError):
    """`hub.optim` has no class of this name; an AttributeError too, as for any module."""


class _ByName(type):
    """The type of these classes: calling one builds, as `hub.build` does."""

    def __call__(cls, params: object, **arguments: Any) -> Any:
        return build_from_parameters(cls.__name__, params, arguments, stacklevel=3)

    def __instancecheck__(cls, instance: object) -> bool:
        """Whether hub built the optimizer by this name; its class is the package's."""
        plan = getattr(instance, "hub_plan", None)
        return getattr(plan, "optimizer", None) == cls.__name__


def class_of(name: str, module: str) -> Any:
    """Return the class that builds this optimizer from parameters.

    Args:
        name: One of `hub.list_optimizers()`, or its layerwise form.
        module: Where the class is found by its name, for pickles.

    Raises:
        NoSuchOptimizerError: No installed plugin offers the name, or it has no layerwise form.
        PluginError: The plugin cannot be used.
    """
    try:
        spec = default_registry().optimizer(name)
    except (UnknownOptimizerError, UnsupportedError) as error:
        raise NoSuchOptimizerError(*error.args) from error
    parameters = list(_parameters(spec))
    return _ByName(
        name,
        (Optimizer,),
        {
            "__module__": module,
            "__qualname__": name,
            "__doc__": _docstring(spec, parameters),
            "__signature__": Signature(parameters),
            "__init__": _initializer(name, parameters),
            "__init_subclass__": _refuse_subclass,
        },
    )


def _parameters(spec: OptimizerSpec) -> Iterator[Parameter]:
    yield Parameter("params", Parameter.POSITIONAL_OR_KEYWORD, annotation=_TYPES["params"])
    fields = spec.arguments.model_fields
    types = get_type_hints(spec.arguments)  # without what pydantic checks besides the type
    for key, field in fields.items():
        default = (
            Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
        )
        yield _keyword(key, default, types[key])
    if Trait.MATRICES_ONLY in spec.traits:
        yield _keyword(REST, {}, _TYPES[REST])
    for key, default in OPTIONS.items():
        if key in fields or (key == "target_modules" and not spec.takes_targets):
            continue
        own = spec.target_modules if key == "target_modules" else default
        yield _keyword(key, own, _TYPES[key])


def _keyword(key: str, default: Any, annotation: Any) -> Parameter:
    return Parameter(key, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _docstring(spec: OptimizerSpec, parameters: list[Parameter]) -> str:
    fields = spec.arguments.model_fields
    lines = [
        f"{spec.summary}.",
        "",
        "Returns what `hub.build` returns: an instance of the class in its package.",
    ]
    lines += [note for each in spec.notes for note in ("", each)]
    lines += ["", "Args:"]
    for parameter in parameters:
        field = fields.get(parameter.name)
        meaning = _MEANINGS[parameter.name] if field is None else field.description or ""
        lines.append(f"    {parameter.name}: {' '.join(meaning.split())}".rstrip())
    return "\n".join(lines)


def _initializer(name: str, parameters: list[Parameter]) -> Any:
    """Return an `__init__` for whoever reads signatures there, such as jsonargparse."""

    def __init__(self: Optimizer, params: object, **arguments: Any) -> None:  # noqa: N807
        raise NotImplementedError  # `_ByName.__call__` makes no instance

    own = Parameter("self", Parameter.POSITIONAL_OR_KEYWORD)
    __init__.__signature__ = Signature([own, *parameters])  # type: ignore[attr-defined]
    __init__.__annotations__ = {each.name: each.annotation for each in parameters}
    __init__.__qualname__ = f"{name}.__init__"
    return __init__


def _refuse_subclass(cls: type, **_: object) -> NoReturn:
    name = cls.__mro__[1].__name__
    raise UnsupportedError(
        f"hub.optim.{name} builds an instance of a class in another package, and cannot be "
        "extended",
        where=cls.__name__,
        fix=f"extend that class, and build it by hub.build(({cls.__name__}, {{...}}), model)",
    )
