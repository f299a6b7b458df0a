"""Typed arguments from an `optim_args` string, a mapping, keywords and a trainer's defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from hub.arguments.describe import describe_field
from hub.arguments.grammar import parse_arguments, pointer, read_value
from hub.arguments.values import DEEPEST, Value, as_tuples
from hub.errors import OptimArgsError
from hub.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=BaseModel)
Origin = Literal["default", "trainer", "optim_args", "keyword", "precision"]


@dataclass(frozen=True)
class Argument:
    """One resolved argument and who set it."""

    name: str
    value: Value
    origin: Origin


@dataclass(frozen=True)
class ResolvedArguments:
    """The validated arguments of an optimizer, each with its origin."""

    model: BaseModel
    arguments: tuple[Argument, ...]


def resolve_arguments(
    name: str,
    arguments: type[BaseModel],
    *,
    optim_args: str | Mapping[str, Any] | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> ResolvedArguments:
    """Merge the user's arguments with a trainer's defaults, and validate the result.

    Args:
        name: The optimizer or schedule, for messages.
        arguments: Its arguments model.
        optim_args: A string in hub's grammar, or a mapping.
        hyperparameters: Keywords.
        defaults: What a trainer passes to every optimizer. Keys that this one lacks are ignored, as
            are values of the wrong shape, such as one number instead of a pair, and values that
            contradict the user's, such as `lr` beside `relative_step=True`.

    Raises:
        OptimArgsError: A key is unknown, given twice with two values, of the wrong type or out
            of range.
    """
    text = optim_args if isinstance(optim_args, str) else None
    asked = as_mapping(
        name, "optim_args", parse_arguments(text) if text is not None else optim_args
    )
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
        for key, value in as_mapping(name, "defaults", defaults).items()
        if key in known
        and not _has_wrong_shape(arguments, key, value)
        and not contradicts(arguments, {key: value}, {**asked, **keywords})
    }
    origins: dict[str, Origin] = {
        **dict.fromkeys(trainer, "trainer"),
        **dict.fromkeys(asked, "optim_args"),
        **dict.fromkeys(keywords, "keyword"),
    }
    model = validate_arguments(name, arguments, {**trainer, **asked, **keywords}, origins, text)
    return ResolvedArguments(model, tuple(_with_origins(model, origins)))


def with_changes(
    name: str, options: ResolvedArguments, changes: Mapping[str, Any]
) -> ResolvedArguments:
    """Return the arguments with some of them replaced, as a precision finding demands."""
    values = {argument.name: argument.value for argument in options.arguments}
    origins: dict[str, Origin] = {a.name: a.origin for a in options.arguments}
    origins.update(dict.fromkeys(changes, "precision"))
    model = validate_arguments(name, type(options.model), {**values, **changes}, origins)
    return ResolvedArguments(model, tuple(_with_origins(model, origins)))


def validate_arguments(
    name: str,
    arguments: type[Model],
    values: Mapping[str, Any],
    origins: Mapping[str, Origin] | None = None,
    text: str | None = None,
) -> Model:
    """Validate values strictly. Text is read by the grammar first; lists count as tuples.

    Raises:
        OptimArgsError: A value is invalid; the error has the argument, the value, the reason and
            what is allowed.
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
    return as_tuples(value, depth=depth)


def _equal(a: object, b: object) -> bool:
    """Whether two values are equal; False for arrays, which are compared by element."""
    try:
        return bool(a == b)
    except (ValueError, RuntimeError, TypeError):
        return False


def _has_wrong_shape(arguments: type[BaseModel], key: str, value: Any) -> bool:
    errors = errors_of(arguments, {key: value})
    kinds = {details["type"] for details in errors if details["loc"][:1] == (key,)}
    return bool(kinds & {"tuple_type", "too_long", "missing"})


def contradicts(
    arguments: type[BaseModel], default: Mapping[str, Any], asked: Mapping[str, Any]
) -> bool:
    """Whether a trainer's value is valid alone, but not with the user's arguments."""
    by_itself, beside = (
        any(not details["loc"] for details in errors_of(arguments, values))
        for values in (default, {**default, **asked})
    )
    return beside and not by_itself


def errors_of(arguments: type[BaseModel], values: Mapping[str, Any]) -> list[ErrorDetails]:
    """Return what pydantic says against values, read as hub reads them."""
    try:
        arguments.model_validate({key: _read(value) for key, value in values.items()}, strict=True)
    except ValidationError as error:
        return error.errors()
    return []


def _with_origins(model: BaseModel, origins: Mapping[str, Origin]) -> Iterator[Argument]:
    for key in type(model).model_fields:
        yield Argument(key, getattr(model, key), origins.get(key, "default"))


def as_mapping(name: str, argument: str, value: Any) -> dict[str, Any]:
    """Return a mapping as a dict, and None as an empty one.

    Raises:
        OptimArgsError: It is neither.
    """
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return dict(value)
    text = "a string such as 'rank=64, scale=0.1', or " if argument == "optim_args" else ""
    raise OptimArgsError(
        f"{argument} is a {type(value).__name__}",
        where=f"{argument} of {name}",
        fix=f"pass {text}a mapping",
    )


def _unknown_key(
    name: str, key: object, arguments: type[BaseModel], text: str | None
) -> OptimArgsError:
    known = arguments.model_fields
    near = get_close_matches(str(key), list(known), n=1, cutoff=0.5)
    fix = f"did you mean '{near[0]}'? " if near else ""
    renamed_keys = getattr(arguments, "renamed_keys", {})
    if key in renamed_keys:
        fix = f"use {renamed_keys[key]}; "
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
