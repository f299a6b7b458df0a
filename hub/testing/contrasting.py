"""Which values of an argument are tried to see that it has an effect."""

from __future__ import annotations

from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from hub.spec import Contrast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hub.spec import OptimizerSpec

DECAY = 0.1
"""Set while other arguments are tried, as some of them act on weight decay only."""
_EMPTY_FLOATS = (0.5, 2.0)
_EMPTY_INTS = (2, 3, 100)


def contrasts(spec: OptimizerSpec, name: str) -> list[list[Contrast]]:
    """Return, for each part of an argument, the contrasts of which one has to show an effect.

    The parts of a tuple are its elements; everything else has one part.
    """
    common = {"weight_decay": DECAY} if "weight_decay" in spec.arguments.model_fields else {}
    if name in spec.contrasts:
        return [
            [Contrast(base=common | dict(c.base), other=common | dict(c.other), some=c.some)]
            for c in spec.contrasts[name]
        ]
    field = spec.arguments.model_fields[name]
    value = {name: field.default, **spec.example_arguments}[name]
    if isinstance(value, tuple):
        parts = [
            [(*value[:i], other, *value[i + 1 :]) for other in _others(None, item)]
            for i, item in enumerate(value)
        ]
    else:
        parts = [list(_others(field.annotation, value))]
    return [
        [Contrast(base=common, other={**common, name: other}) for other in values]
        for values in parts
    ]


def _others(annotation: Any, value: Any) -> Iterator[Any]:
    """Yield other values of the kind, those that are sure to show first; some may be invalid."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield from dict.fromkeys(other for other in _numbers(value) if other != value)
    else:
        yield from (other for other in _of_type(annotation) if other != value)


def _numbers(value: float) -> tuple[float, ...]:
    if isinstance(value, int):
        return (value + 1, 1, 2, 3, 2 * value, 16 * value, value // 2)
    return (0.5, 0.25, 2.0, 2 * value, value / 2)


def _of_type(annotation: Any) -> Iterator[Any]:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _of_type(inner[0])
    elif origin in (Union, UnionType):
        for option in inner:
            yield from _of_type(option)
    elif origin is Literal:
        yield from inner
    elif annotation is bool:
        yield from (True, False)
    elif annotation is int:
        yield from _EMPTY_INTS
    elif annotation is float:
        yield from _EMPTY_FLOATS
