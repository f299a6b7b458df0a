"""Typed arguments from an `optim_args` string, a mapping, keywords and a trainer's defaults."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypeGuard,
    Union,
    get_args,
    get_origin,
)

from pydantic import BaseModel, BeforeValidator, ValidationError, WrapSerializer

from hub.errors import OptimArgsError
from hub.grammar import parse, pointer, read_value
from hub.printable import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

Origin = Literal["default", "trainer", "optim_args", "keyword", "precision"]


DEEPEST = 50
"""How many values may be one inside the other; a list that holds itself has no end of them."""


def frozen(value: Any, *, depth: int = 0) -> Any:
    """Return sequences as tuples and mappings as dicts, all the way down.

    A file has lists, and OmegaConf (Hydra) classes of its own for both.

    Raises:
        OptimArgsError: The value has no end, or goes deeper than any that makes sense.
    """
    if depth > DEEPEST:
        raise OptimArgsError(
            f"a value goes more than {DEEPEST} levels deep",
            where="arguments",
            fix="give numbers, texts, and sequences or mappings of them",
        )
    if isinstance(value, Mapping):
        return {key: frozen(item, depth=depth + 1) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return tuple(frozen(item, depth=depth + 1) for item in value)
    return value


def to_json(value: Any) -> Any:
    """Return plain data with what JSON has no number for as a mapping: `{"float": "inf"}`."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


def from_json(value: Any) -> Any:
    """Return what `to_json` was called on, but for tuples, which are lists."""
    if isinstance(value, Mapping):
        if value.keys() == {"float"} and value["float"] in ("inf", "-inf", "nan"):
            return float(value["float"])
        return {key: from_json(item) for key, item in value.items()}
    return [from_json(item) for item in value] if isinstance(value, list | tuple) else value


def _dumped(value: Any, dump: Callable[[Any], Any]) -> Any:
    return dump(to_json(value))  # pydantic 2.12 makes None of inf in what may be anything


Value = Annotated[Any, BeforeValidator(frozen), WrapSerializer(_dumped, when_used="json")]
"""A plain value; a sequence is a tuple and inf is inf, also after a trip through JSON."""


@dataclass(frozen=True)
class Argument:
    """One resolved argument and who set it."""

    name: str
    value: Value
    origin: Origin


@dataclass(frozen=True)
class Options:
    """The validated arguments of an optimizer, each with its origin."""

    model: BaseModel
    arguments: tuple[Argument, ...]


def resolve(
    name: str,
    arguments: type[BaseModel],
    *,
    optim_args: str | Mapping[str, Any] | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Options:
    """Merge what the user asked for with a trainer's defaults, and validate it.

    Args:
        name: The optimizer or schedule, for messages.
        arguments: Its arguments model.
        optim_args: A string in hub's grammar, or a mapping.
        hyperparameters: Keywords.
        defaults: What a trainer passes to every optimizer. Ignored are keys that this one has not,
            values of another shape than its own, such as one number where it takes a pair, and
            those that contradict what is asked for, such as `lr` beside `relative_step=True`.

    Raises:
        OptimArgsError: A key is unknown, given twice with two values, of the wrong type or out
            of range.
    """
    text = optim_args if isinstance(optim_args, str) else None
    asked = _as_mapping(name, "optim_args", parse(text) if text is not None else optim_args)
    keywords = dict(hyperparameters or {})
    known = arguments.model_fields
    for key in [*asked, *keywords]:
        if key not in known:
            raise _unknown_key(name, key, arguments, text)
    for key in asked.keys() & keywords.keys():
        if not _equal(_read(asked[key]), _read(keywords[key])):
            raise OptimArgsError(
                f"'{key}' is given twice with two values: {shown(asked[key])} in optim_args and "
                f"{shown(keywords[key])} as a keyword",
                where=f"argument '{key}' of {name}",
                fix="remove one of them",
            )
    trainer = {
        key: value
        for key, value in _as_mapping(name, "defaults", defaults).items()
        if key in known
        and not _of_another_shape(arguments, key, value)
        and not _contradicts(arguments, {key: value}, {**asked, **keywords})
    }
    origins: dict[str, Origin] = {
        **dict.fromkeys(trainer, "trainer"),
        **dict.fromkeys(asked, "optim_args"),
        **dict.fromkeys(keywords, "keyword"),
    }
    model = validate(name, arguments, {**trainer, **asked, **keywords}, origins, text)
    return Options(model, tuple(_described(model, origins)))


def adjusted(name: str, options: Options, changes: Mapping[str, Any]) -> Options:
    """Return the options with some arguments replaced, as a precision finding demands."""
    values = {argument.name: argument.value for argument in options.arguments}
    origins: dict[str, Origin] = {a.name: a.origin for a in options.arguments}
    origins.update(dict.fromkeys(changes, "precision"))
    model = validate(name, type(options.model), {**values, **changes}, origins)
    return Options(model, tuple(_described(model, origins)))


def validate(
    name: str,
    arguments: type[BaseModel],
    values: Mapping[str, Any],
    origins: Mapping[str, Origin] | None = None,
    text: str | None = None,
) -> BaseModel:
    """Validate values strictly. Text is read by the grammar first; lists count as tuples.

    Raises:
        OptimArgsError: With the argument, the value, the reason and what is allowed.
    """
    read = {key: _read(value) for key, value in values.items()}
    try:
        return arguments.model_validate(read, strict=True)
    except ValidationError as error:
        failed = {str(details["loc"][0]) for details in error.errors() if details["loc"]}
        # A word that reads as a constant or a number may be meant as text: "none", "64".
        as_text = {key: values[key] for key in failed if isinstance(values.get(key), str)}
        try:
            return arguments.model_validate({**read, **as_text}, strict=True)
        except ValidationError:
            details = error.errors()[0]
            raise _invalid(name, arguments, details, origins or {}, text) from error


def _read(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        try:
            return read_value(value)
        except ValueError:
            return value
    if isinstance(value, Sequence) and not isinstance(value, tuple | bytes) and depth <= DEEPEST:
        return tuple(_read(item, depth + 1) for item in value)
    return frozen(value, depth=depth)


def _equal(a: object, b: object) -> bool:
    """Whether two values are equal; arrays say so element by element, and have no answer."""
    try:
        return bool(a == b)
    except (ValueError, RuntimeError, TypeError):
        return False


def _of_another_shape(arguments: type[BaseModel], key: str, value: Any) -> bool:
    errors = _errors(arguments, {key: value})
    kinds = {details["type"] for details in errors if details["loc"][:1] == (key,)}
    return bool(kinds & {"tuple_type", "too_long", "missing"})


def _contradicts(
    arguments: type[BaseModel], default: Mapping[str, Any], asked: Mapping[str, Any]
) -> bool:
    """Whether a trainer's value is good by itself, and not beside what is asked for."""
    by_itself, beside = (
        any(not details["loc"] for details in _errors(arguments, values))
        for values in (default, {**default, **asked})
    )
    return beside and not by_itself


def _errors(arguments: type[BaseModel], values: Mapping[str, Any]) -> list[ErrorDetails]:
    try:
        arguments.model_validate({key: _read(value) for key, value in values.items()}, strict=True)
    except ValidationError as error:
        return error.errors()
    return []


def _described(model: BaseModel, origins: Mapping[str, Origin]) -> Iterator[Argument]:
    for key in type(model).model_fields:
        yield Argument(key, getattr(model, key), origins.get(key, "default"))


def _as_mapping(name: str, argument: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return dict(value)
    text = "a string such as 'rank=64, scale=0.1', or " if argument == "optim_args" else ""
    raise OptimArgsError(
        f"{argument} is a {type(value).__name__}",
        where=f"{argument} of {name}",
        fix=f"give {text}a mapping",
    )


def _unknown_key(
    name: str, key: object, arguments: type[BaseModel], text: str | None
) -> OptimArgsError:
    known = arguments.model_fields
    near = get_close_matches(str(key), list(known), n=1, cutoff=0.5)
    fix = f"did you mean '{near[0]}'? " if near else ""
    elsewhere = getattr(arguments, "elsewhere", {})
    if key in elsewhere:
        fix = f"use {elsewhere[key]}; "
    return OptimArgsError(
        f"{name} has no argument '{key}'{pointer(text, str(key))}",
        where=f"argument '{key}' of {name}",
        fix=f"{fix}it takes {', '.join(known)}",
    )


def _invalid(
    name: str,
    arguments: type[BaseModel],
    details: ErrorDetails,
    origins: Mapping[str, Origin],
    text: str | None,
) -> OptimArgsError:
    reason = details["msg"].removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:]
    if not details["loc"]:
        return OptimArgsError(f"{name}: {reason}", where=f"arguments of {name}")
    key = str(details["loc"][0])
    origin = origins.get(key, "default")
    return OptimArgsError(
        f"{key}={shown(details['input'])} is not valid: {reason}"
        + pointer(text if origin == "optim_args" else None, key),
        where=f"argument '{key}' of {name}, from {origin}",
        fix=describe_field(key, arguments.model_fields.get(key)),
    )


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a number that a float can be; a boolean is none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return not math.isnan(value)
    except OverflowError:  # a whole number of 400 digits
        return False


def check_whole(key: str, value: object, things: str, *, lowest: int, where: str = "") -> None:
    """Raise `OptimArgsError` unless a number of things is whole and not below the lowest."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (whole and lowest <= value < 2**63):  # type: ignore[operator]  # it is an int here
        raise OptimArgsError(
            f"{key}={shown(value)} is not a number of {things}",
            where=where or key,
            fix=f"a whole number from {lowest} on",
        )


def describe_field(key: str, field: FieldInfo | None) -> str:
    """Return an argument's type, default and meaning in one line."""
    if field is None:
        return ""
    default = "" if field.is_required() else f", by default {field.default!r}"
    meaning = f": {' '.join(field.description.split())}" if field.description else ""
    return f"{key} is {type_name(field)}{default}{meaning}"


def type_name(field: FieldInfo) -> str:
    """Return how an argument's type is written, bounds included: "float >= 0"."""
    bounds = [
        f"{sign} {getattr(bound, attribute)}"
        for bound in field.metadata
        for attribute, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
        if hasattr(bound, attribute)
    ]
    return " ".join([_type_name(field.annotation), " and ".join(bounds)]).strip()


def _type_name(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(inner[0])
    if origin is Literal:
        return " | ".join(repr(value) for value in inner)
    if origin in (Union, UnionType):
        return " | ".join(_type_name(option) for option in inner)
    if origin is not None:
        names = ("..." if item is Ellipsis else _type_name(item) for item in inner)
        return f"{origin.__name__}[{', '.join(names)}]"
    if annotation is type(None):
        return "None"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
