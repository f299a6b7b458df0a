"""The fields of an arguments model, as source text, from a signature."""

from __future__ import annotations

import inspect
import json
import math
import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from inspect import Parameter
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from hub.arguments import Arguments
from hub.errors import HubError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WIDTH = 88
"""Columns of a line, as ruff and black format by default."""
BLOCKS = {"lr": "LearningRate", "weight_decay": "WeightDecay", "eps": "Eps"}
"""The building blocks of `hub.arguments` by the name of an argument that is a number."""
DESCRIBED = frozenset({*BLOCKS.values(), "Betas"})
"""Those that say what they mean."""
BETA = re.compile(r"beta_?\d")
PLAIN = (bool, int, float, str)
DOCUMENTED = {"bool": "bool", "boolean": "bool", "int": "int", "integer": "int", "float": "float"}
"""The types that a docstring may give an argument, as "lr (float): ..." does."""
ANYTHING = "Any"
ANY_OTHERS = (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)


@dataclass(frozen=True)
class ArgumentField:
    """One field of an arguments model."""

    name: str
    type: str
    default: str
    """As source text; "" is required."""
    is_described: bool
    """Whether it is a building block that says what it means."""

    @property
    def source(self) -> str:
        """The lines of the field, formatted."""
        start = f"    {self.name}: {self.type}"
        line = f"{start} = {self.default}" if self.default else start
        if len(line) > WIDTH and self.default.startswith("("):
            line = f"{start} = {_exploded(self.default)}"
        elif len(line) > WIDTH and self.type.startswith("Literal["):
            line = f"    {self.name}: {_exploded(self.type)} = {self.default}"
        return line if self.is_described else f'{line}\n    """"""'


class Fields(typing.NamedTuple):
    """What can be written of a signature."""

    fields: tuple[ArgumentField, ...]
    left_out: dict[str, str]
    """The arguments that cannot, and why."""

    @property
    def names(self) -> set[str]:
        """The names of all fields."""
        return {field.name for field in self.fields}

    @property
    def required(self) -> list[str]:
        """The names of those without a default."""
        return [field.name for field in self.fields if not field.default]


def fields_of(target: Callable[..., Any], where: str) -> Fields:
    """Return the fields for what a class or function takes besides its parameters.

    Raises:
        HubError: Its signature cannot be read, or it takes nothing, or requires an argument that
            hub cannot give it.
    """
    parameters = _parameters(target, where)
    hints, documented = _hints(target), _documented(target)
    fields, left_out = [], {}
    for parameter in parameters:
        key, reason = parameter.name, _reason_against(parameter)
        if not reason:
            field = _field(parameter, hints.get(key), documented.get(key))
            if field.default and field.type == ANYTHING:  # would accept what upstream does not
                left_out[key] = "its type is not known"
            else:
                fields.append(field)
        elif parameter.default is Parameter.empty and parameter.kind not in ANY_OTHERS:
            raise HubError(
                f"{where} requires '{key}', which hub cannot give it: {reason}",
                where=where,
                fix="write a function without it, and name that one",
            )
        else:
            left_out[key] = reason
    return Fields(tuple(fields), left_out)


def _parameters(target: Callable[..., Any], where: str) -> list[Parameter]:
    """Return what a callable takes after its first argument, the parameter groups."""
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (ValueError, TypeError) as error:
        raise HubError(
            f"the signature of {where} cannot be read: {error}",
            where=where,
            fix="write a function with named arguments that calls it, and name that one",
        ) from error
    first = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    if not parameters or parameters[0].kind not in first:
        raise HubError(
            f"{where} does not take parameter groups as its first argument",
            where=where,
            fix="write a function whose first argument is a list of parameter groups",
        )
    return parameters[1:]


def _reason_against(parameter: Parameter) -> str:
    if parameter.kind in ANY_OTHERS:
        return "it stands for any others"
    if parameter.kind is Parameter.POSITIONAL_ONLY:
        return "it has no keyword"
    if parameter.name.startswith(("_", "model_")) or hasattr(Arguments, parameter.name):
        return "pydantic models use the name"
    if parameter.default is not Parameter.empty and written(parameter.default) is None:
        return "its default cannot be written"
    return ""


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    constructor = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
    try:
        return typing.get_type_hints(constructor, include_extras=True)
    except Exception:  # noqa: BLE001 - names that exist for the type checker only, and so on
        return {}


def _documented(target: Callable[..., Any]) -> dict[str, str]:
    """Return the types that a docstring gives, as "lr (float, optional): ..."."""
    text = inspect.getdoc(target) or ""
    found = re.findall(r"^\s*`?(\w+)`? ?\((\w+)(?:, \w+)*\)\s*:", text, re.MULTILINE)
    return {name: DOCUMENTED[kind] for name, kind in found if kind in DOCUMENTED}


def _field(parameter: Parameter, hint: Any, documented: str | None) -> ArgumentField:
    default = parameter.default
    required = default is Parameter.empty
    block = _block(parameter.name, default)
    kind = block or (_type(hint) if hint is not None else documented or _type_of(default))
    if default is None and kind != ANYTHING and "None" not in kind.split(" | "):
        kind = f"{kind} | None"
    if isinstance(default, float) and kind == "int":
        kind = "float"
    if _is_whole(default) and kind.startswith(("float", *BLOCKS.values(), "Beta")):
        default = float(default)
    text = "" if required else written(default) or ""
    if isinstance(default, float) and not math.isfinite(default):
        text = f"Field(default={text}, allow_inf_nan=True)"
    return ArgumentField(parameter.name, kind, text, is_described=block in DESCRIBED)


def _block(name: str, default: Any) -> str:
    """Return the building block that an argument is, "" if it is none."""
    number = default in (None, Parameter.empty) or _is_number(default)
    if name in BLOCKS and number and (not _is_number(default) or default >= 0):
        return BLOCKS[name]
    if BETA.fullmatch(name) and number and (not _is_number(default) or _is_beta(default)):
        return "Beta"
    if name == "betas" and isinstance(default, tuple | list) and all(map(_is_beta, default)):
        pair = 2
        return "Betas" if len(default) == pair else f"tuple[{', '.join(['Beta'] * len(default))}]"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_beta(value: Any) -> bool:
    return _is_number(value) and 0 <= value < 1


def _type(hint: Any) -> str:
    """Return the source of the type that a field has for an annotation, at worst `Any`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in PLAIN:
        return str(hint.__name__)
    if hint in (None, NoneType):
        return "None"
    if origin is Annotated:
        return _type(arguments[0])
    if origin in (Union, UnionType):
        return _union([_type(one) for one in arguments if not _is_tensor(one)])
    if origin is Literal:
        texts = [written(value) for value in arguments]
        return ANYTHING if None in texts else f"Literal[{', '.join(map(str, texts))}]"
    return _collection(origin or hint, arguments)


def _is_tensor(hint: Any) -> bool:
    return getattr(hint, "__name__", "") == "Tensor"


def _union(texts: Sequence[str]) -> str:
    if ANYTHING in texts or not texts:
        return ANYTHING
    kept = [text for text in dict.fromkeys(texts) if text != "None"]
    if "float" in kept:  # which takes whole numbers too
        kept = [text for text in kept if text != "int"]
    return " | ".join([*kept, *(["None"] if "None" in texts else [])])


def _collection(origin: Any, arguments: tuple[Any, ...]) -> str:
    """Return the type of what holds several: hub makes every sequence a tuple."""
    if not isinstance(origin, type):
        return ANYTHING
    if issubclass(origin, tuple) and arguments and arguments[-1] is not Ellipsis:
        return f"tuple[{', '.join(map(_type, arguments))}]"
    if issubclass(origin, Mapping):
        return f"dict[str, {_type(arguments[1]) if arguments else ANYTHING}]"
    if issubclass(origin, Iterable):
        return f"tuple[{_type(arguments[0]) if arguments else ANYTHING}, ...]"
    return ANYTHING


def _type_of(default: Any) -> str:
    """Return the type that a default suggests."""
    if isinstance(default, PLAIN):
        return type(default).__name__
    if isinstance(default, tuple | list) and default:
        return f"tuple[{', '.join(map(_type_of, default))}]"
    return "dict[str, Any]" if isinstance(default, Mapping) else ANYTHING


def written(value: Any) -> str | None:
    """Return a default as source text, or None if it is no plain value."""
    if value is None or isinstance(value, bool | int):
        return repr(value) if type(value) in (NoneType, bool, int) else None
    if isinstance(value, float):
        return _written_float(value)
    if type(value) is str:  # in double quotes, but where that takes more backslashes
        fewer = value.count('"') > value.count("'")
        return repr(value) if fewer else json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple | list):
        texts = [written(item) for item in value]
        inner = ", ".join(map(str, texts)) + ("," if len(texts) == 1 else "")
        return None if None in texts else f"({inner})"
    return "{}" if value == {} else None


def _written_float(value: float) -> str:
    if math.isnan(value):
        return "math.nan"
    return repr(float(value)) if math.isfinite(value) else f"{'-' * (value < 0)}math.inf"


def _exploded(text: str) -> str:
    """Return a tuple or a `Literal`, one item a line."""
    start = re.match(r"(Literal)?[\[(]", text)[0]  # type: ignore[index]
    items = re.findall(
        r'"(?:\\.|[^"\\])*"|\'[^\']*\'|\([^()]*\)|[^\s,()\[\]]+', text[len(start) : -1]
    )
    return "\n".join([start, *(f"        {item}," for item in items), f"    {text[-1]}"])
