"""Plain values, which arguments, plans and checkpoints consist of, and their JSON form."""

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
"""The deepest nesting of a value; a list that contains itself would never end."""


def as_tuples(value: Any, *, depth: int = 0) -> Any:
    """Return sequences as tuples and mappings as dicts, all the way down.

    Files have lists, and OmegaConf (Hydra) has its own classes for both.

    Raises:
        OptimArgsError: The value contains itself, or is nested more than `DEEPEST` levels deep.
    """
    if depth > DEEPEST:
        raise OptimArgsError(
            f"a value is nested more than {DEEPEST} levels deep",
            where="arguments",
            fix="pass numbers, strings, and sequences or mappings of them",
        )
    if isinstance(value, Mapping):
        return {key: as_tuples(item, depth=depth + 1) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return tuple(as_tuples(item, depth=depth + 1) for item in value)
    return value


def to_json(value: Any) -> Any:
    """Return plain data for JSON, with inf and nan as mappings: `{"float": "inf"}`."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


def from_json(value: Any) -> Any:
    """Undo `to_json`, except that tuples come back as lists."""
    if isinstance(value, Mapping):
        if value.keys() == {"float"} and value["float"] in ("inf", "-inf", "nan"):
            return float(value["float"])
        return {key: from_json(item) for key, item in value.items()}
    return [from_json(item) for item in value] if isinstance(value, list | tuple) else value


def _dumped(value: Any, dump: Callable[[Any], Any]) -> Any:
    return dump(to_json(value))  # pydantic 2.12 turns inf into None where any value is allowed


Value = Annotated[Any, BeforeValidator(as_tuples), WrapSerializer(_dumped, when_used="json")]
"""A plain value; a sequence is a tuple and inf is inf, also after a trip through JSON."""


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a number that fits a float; booleans and nan are not."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return not math.isnan(value)
    except OverflowError:  # a whole number of 400 digits
        return False
