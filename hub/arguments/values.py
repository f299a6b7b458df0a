"""Plain values: what arguments, plans and checkpoints are made of, also as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import (
    Annotated,
    Any,
    TypeGuard,
)

from pydantic import BeforeValidator, WrapSerializer

from hub.errors import OptimArgsError

DEEPEST = 50
"""How many values may be one inside the other; a list that holds itself has no end of them."""


def as_tuples(value: Any, *, depth: int = 0) -> Any:
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
        return {key: as_tuples(item, depth=depth + 1) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return tuple(as_tuples(item, depth=depth + 1) for item in value)
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


Value = Annotated[Any, BeforeValidator(as_tuples), WrapSerializer(_dumped, when_used="json")]
"""A plain value; a sequence is a tuple and inf is inf, also after a trip through JSON."""


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a number that a float can be; a boolean is none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return not math.isnan(value)
    except OverflowError:  # a whole number of 400 digits
        return False
