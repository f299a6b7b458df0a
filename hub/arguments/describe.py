"""Describe an argument in words: its type, bounds, default and meaning."""

from __future__ import annotations

from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    Union,
    get_args,
    get_origin,
)

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


def describe_field(key: str, field: FieldInfo | None) -> str:
    """Return an argument's type, default and meaning in one line."""
    if field is None:
        return ""
    default = "" if field.is_required() else f", by default {field.default!r}"
    meaning = f": {' '.join(field.description.split())}" if field.description else ""
    return f"{key} is {type_name(field)}{default}{meaning}"


def type_name(field: FieldInfo) -> str:
    """Return an argument's type as text, bounds included: "float >= 0"."""
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
