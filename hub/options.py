"""Typed arguments from an `optim_args` string, a mapping, keywords and a trainer's defaults."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    Union,
    get_args,
    get_origin,
)

from pydantic import BaseModel, BeforeValidator, ValidationError

from hub.errors import OptimArgsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

Origin = Literal["default", "trainer", "optim_args", "keyword", "precision"]

_OPEN, _CLOSE = "([{", ")]}"
_PAIR = {")": "(", "]": "[", "}": "{"}
_BARE_WORD = re.compile(r"[\w.+/:@*-]+")
_CONSTANTS = {"none": None, "null": None, "true": True, "false": False}


class Item(NamedTuple):
    """One `key=value` of an `optim_args` string, with the place of each part in it."""

    key: str
    value: str
    key_at: int
    value_at: int


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


Value = Annotated[Any, BeforeValidator(_frozen)]
"""A plain value; a sequence is a tuple, also after a trip through JSON."""


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


def parse(text: str, owner: str = "optim_args") -> dict[str, str]:
    """Split `key=value, key=value` into keys and the texts of their values.

    Values are Python literals or bare words; brackets and quotes protect commas. Nothing is
    evaluated; what a text means is decided by the schema, in `validate`.

    Raises:
        OptimArgsError: With the place in the text where it stops making sense.
    """
    values: dict[str, str] = {}
    for item in _items(text, owner):
        if item.key in values:
            raise _error_at(text, item.key_at, owner, f"'{item.key}' is given twice", "remove one")
        try:
            read_value(item.value)
        except ValueError as error:
            raise _error_at(
                text,
                item.value_at,
                owner,
                f"the value of '{item.key}' is neither a literal nor a word: {error}",
                "quote it, or write a Python literal such as 64, 1e-4, True or (0.9, 0.95)",
            ) from error
        values[item.key] = item.value.strip()
    return values


def read_value(text: str) -> Any:
    """Return the Python literal that the text is, else None, True, False or the word itself.

    Raises:
        ValueError: It is none of these.
    """
    text = text.strip()
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
    try:
        with warnings.catch_warnings():
            # `ast` warns about odd literals such as "0in" or "\d": they are mistakes here.
            warnings.simplefilter("error")
            return _plain(ast.literal_eval(text))
    except (ValueError, TypeError, SyntaxError, Warning, MemoryError, RecursionError):
        if _BARE_WORD.fullmatch(text):
            return text
        raise ValueError(_shortened(text)) from None


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
            and values of another shape than its own: one number where it takes a pair.

    Raises:
        OptimArgsError: A key is unknown, given twice with two values, of the wrong type or out
            of range.
    """
    text = optim_args if isinstance(optim_args, str) else None
    asked = _as_mapping(name, parse(text) if text is not None else optim_args)
    keywords = dict(hyperparameters or {})
    known = arguments.model_fields
    for key in [*asked, *keywords]:
        if key not in known:
            raise _unknown_key(name, key, known, text)
    for key in asked.keys() & keywords.keys():
        if _read(asked[key]) != _read(keywords[key]):
            raise OptimArgsError(
                f"'{key}' is given twice with two values: {asked[key]!r} in optim_args and "
                f"{keywords[key]!r} as a keyword",
                where=f"argument '{key}' of {name}",
                fix="remove one of them",
            )
    trainer = {
        key: value
        for key, value in (defaults or {}).items()
        if key in known and not _of_another_shape(arguments, key, value)
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


def _items(text: str, owner: str) -> Iterator[Item]:
    start = 0
    for end in _commas(text, owner):
        piece = text[start:end]
        if piece.strip():
            yield _item(text, piece, start, owner)
        elif end < len(text):
            raise _error_at(text, end, owner, "there is nothing before this comma", "remove it")
        start = end + 1


def _item(text: str, piece: str, start: int, owner: str) -> Item:
    key, equals, value = piece.partition("=")
    at = start + len(key) - len(key.lstrip())
    if not equals:
        raise _error_at(text, at, owner, f"'{piece.strip()}' has no value", "write key=value")
    if not key.strip().isidentifier():
        raise _error_at(text, at, owner, f"'{key.strip()}' is not a key", "write key=value")
    value_at = start + len(key) + 1 + len(value) - len(value.lstrip())
    if not value.strip():
        raise _error_at(
            text, min(value_at, start + len(piece)), owner, f"'{key.strip()}' has no value", ""
        )
    return Item(key.strip(), value, at, value_at)


def _commas(text: str, owner: str) -> Iterator[int]:
    """Yield the places of the commas outside brackets and quotes, and the end of the text."""
    opened: list[tuple[str, int]] = []
    quote: tuple[str, int] | None = None
    skip = False
    for at, char in enumerate(text):
        if skip:
            skip = False
        elif quote:
            skip = char == "\\"
            quote = None if char == quote[0] else quote
        elif char in "'\"":
            quote = (char, at)
        elif char in _OPEN:
            opened.append((char, at))
        elif char in _CLOSE:
            if not opened or opened.pop()[0] != _PAIR[char]:
                raise _error_at(text, at, owner, f"'{char}' closes nothing", "balance the brackets")
        elif char == "," and not opened:
            yield at
    for char, at in filter(None, [quote, *opened]):
        raise _error_at(text, at, owner, f"'{char}' is never closed", f"close the '{char}'")
    yield len(text)


def _plain(value: Any) -> Any:
    """Return the value if it is made of None, bool, int, float, str and sequences; tuples only."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return tuple(_plain(item) for item in value)
    raise ValueError(type(value).__name__)


def _read(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return read_value(value)
        except ValueError:
            return value
    if isinstance(value, list):
        return tuple(_read(item) for item in value)
    return value


def _of_another_shape(arguments: type[BaseModel], key: str, value: Any) -> bool:
    try:
        arguments.model_validate({key: _read(value)}, strict=True)
    except ValidationError as error:
        kinds = {details["type"] for details in error.errors() if details["loc"][:1] == (key,)}
        return bool(kinds & {"tuple_type", "too_long", "missing"})
    return False


def _described(model: BaseModel, origins: Mapping[str, Origin]) -> Iterator[Argument]:
    for key in type(model).model_fields:
        yield Argument(key, getattr(model, key), origins.get(key, "default"))


def _as_mapping(name: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return dict(value)
    raise OptimArgsError(
        f"optim_args is a {type(value).__name__}",
        where=f"optim_args of {name}",
        fix="give a string such as 'rank=64, scale=0.1', or a mapping",
    )


def _unknown_key(
    name: str, key: object, known: Mapping[str, FieldInfo], text: str | None
) -> OptimArgsError:
    near = get_close_matches(str(key), list(known), n=1, cutoff=0.5)
    fix = f"did you mean '{near[0]}'? " if near else ""
    return OptimArgsError(
        f"{name} has no argument '{key}'{_pointer(text, str(key))}",
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
    value = _shortened(repr(details["input"]))
    return OptimArgsError(
        f"{key}={value} is not valid: {reason}"
        + _pointer(text if origin == "optim_args" else None, key),
        where=f"argument '{key}' of {name}, from {origin}",
        fix=describe_field(key, arguments.model_fields.get(key)),
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
        return f"{origin.__name__}[{', '.join(_type_name(item) for item in inner)}]"
    if annotation is type(None):
        return "None"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _pointer(text: str | None, key: str) -> str:
    """Return the text with a mark under a key, where the key came from a text."""
    if text is None:
        return ""
    places = [item.key_at for item in _items(text, "optim_args") if item.key == key]
    return _marked(text, places[0]) if places else ""


def _error_at(text: str, at: int, owner: str, what: str, fix: str) -> OptimArgsError:
    return OptimArgsError(
        f"{what}{_marked(text, at)}", where=f"{owner}, character {at + 1}", fix=fix
    )


def _marked(text: str, at: int, width: int = 60) -> str:
    start = max(0, at - width // 2)
    shown = "".join(char if char.isprintable() else " " for char in text[start : start + width])
    return f"\n    {shown}\n    {' ' * (at - start)}^"


def _shortened(text: str, width: int = 80) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
