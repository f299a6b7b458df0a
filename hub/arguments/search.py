"""In which range an argument is tuned: data in its annotation, and how to read it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel, GetJsonSchemaHandler
    from pydantic.fields import FieldInfo
    from pydantic_core import CoreSchema

KEY = "x-search"
"""Of the range in a JSON Schema."""
Scale = Literal["linear", "log"]


@dataclass(frozen=True)
class Search:
    """The range in which to tune an argument, as part of its annotation.

    `lr: Annotated[LearningRate, Search(1e-3, 1.0)] = 1e-2`: the last range of an annotation counts.
    Without one an argument is never tuned.

    Args:
        low: The smallest value.
        high: The largest value.
        scale: "log" if values are as likely between 0.001 and 0.01 as between 0.01 and 0.1.
        times_default: Whether both are factors on the argument's default.

    Raises:
        ValueError: The range is empty, or on a logarithmic scale and not above 0.
    """

    low: float
    high: float
    scale: Scale = "log"
    times_default: bool = False

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise ValueError(f"there is no range from {self.low} to {self.high}")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"a logarithmic scale from {self.low}: it needs numbers above 0")

    def around(self, default: object) -> Search | None:
        """Return the range in numbers, or None if it needs a default and there is none."""
        if not self.times_default:
            return self
        if not isinstance(default, int | float) or default <= 0:
            return None
        low, high = (float(f"{factor * default:.6g}") for factor in (self.low, self.high))
        return replace(self, low=low, high=high, times_default=False)

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Add the range to the schema of the value."""
        return {**handler(core_schema), KEY: asdict(self)}


RATE = Search(0.03, 10.0, times_default=True)
DECAY = Search(1e-3, 0.5)
BETAS = Search(0.8, 0.98, "linear"), Search(0.9, 0.999, "linear")


def usual(key: str, kind: Any, default: object) -> Any:
    """Return an argument's type with the range that is usual for its name, if there is one.

    For packages that declare no ranges. A pair of betas has two.

    Args:
        key: The argument's name.
        kind: Its type.
        default: Its default.
    """
    if key == "betas" and isinstance(default, tuple) and len(default) == len(BETAS):
        parts = get_args(kind) or (float, float)
        pairs = zip(parts, BETAS, strict=True)
        return tuple.__class_getitem__(tuple(Annotated[part, one] for part, one in pairs))
    ranges = {"lr": RATE, "weight_decay": DECAY}
    is_number = isinstance(default, int | float) and not isinstance(default, bool)
    return Annotated[kind, ranges[key]] if key in ranges and is_number else kind


def ranges_of(field: FieldInfo) -> dict[int | None, Search]:
    """Return the ranges of an argument's elements by index, or its own under None; {} is none."""
    found = dict(_ranges(field.annotation, tuple(field.metadata)))
    default = None if field.is_required() else field.default
    size = len(default) if isinstance(default, tuple) else 0
    around = {i: one.around(default) for i, one in found.items() if i is None or i < size}
    return {index: one for index, one in around.items() if one is not None}


def refused(arguments: type[BaseModel]) -> Iterator[tuple[str, float, str]]:
    """Yield each end of a range that its argument refuses, as (argument, value, reason)."""
    from hub.arguments.resolve import errors_of

    for key, field in arguments.model_fields.items():
        for index, one in ranges_of(field).items():
            for end in (one.low, one.high):
                value = end if index is None else _replaced(field.default, index, end)
                for error in errors_of(arguments, {key: value}):
                    if error["loc"][:1] == (key,):
                        yield key, end, error["msg"]


def _replaced(whole: tuple[Any, ...], index: int, value: float) -> tuple[Any, ...]:
    return (*whole[:index], value, *whole[index + 1 :])


def _ranges(annotation: Any, metadata: tuple[Any, ...]) -> Iterator[tuple[int | None, Search]]:
    own = [one for one in metadata if isinstance(one, Search)]
    origin, inner = get_origin(annotation), get_args(annotation)
    if own:
        yield None, own[-1]
    elif origin is Annotated:
        yield from _ranges(inner[0], inner[1:])
    elif origin in (Union, UnionType):
        for option in inner:
            yield from _ranges(option, ())
    elif origin is tuple:
        for index, part in enumerate(inner):
            yield from ((index, found) for at, found in _ranges(part, ()) if at is None)


def resolved(schema: Any, default: object) -> Any:
    """Return a JSON Schema with the ranges in it in numbers, as the default makes them.

    A range that needs a default is left out if there is none.
    """
    if isinstance(schema, list):
        return [resolved(item, default) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: resolved(value, default) for key, value in schema.items() if key != KEY}
    found = Search(**schema[KEY]).around(default) if KEY in schema else None
    if found is None:
        return made
    return {**made, KEY: {"low": found.low, "high": found.high, "scale": found.scale}}
