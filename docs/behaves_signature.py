"""Read what an optimizer class takes from its signature, as plain data."""

import inspect
import types
import typing
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

SIMPLE = {bool: "bool", int: "int", float: "float", str: "str"}
DESCRIPTIONS = {
    "lr": "Learning rate.",
    "betas": "Decay rates of the running averages.",
    "eps": "Added to a denominator for stability.",
    "weight_decay": "Weight decay coefficient.",
    "weight_decouple": "Decay the weights apart from the gradient, as AdamW does.",
    "fixed_decay": "Do not multiply the weight decay by the learning rate.",
    "maximize": "Maximize the loss.",
    "foreach": "Update many parameters with one call. None: let the class decide.",
    "ams_bound": "Divide by the largest second moment so far, as AMSGrad does.",
    "amsgrad": "Divide by the largest second moment so far.",
    "momentum": "Momentum factor.",
    "nesterov": "Nesterov momentum.",
    "dampening": "Dampening of the momentum.",
    "clip_threshold": "Maximum root mean square of an update.",
    "rectify": "Rectify the variance of the first steps, as RAdam does.",
    "cautious": "Leave out the elements of an update whose sign differs from the gradient's.",
}


def arguments_of(cls: type) -> dict[str, dict[str, Any]]:
    """Return each argument's type, default and description.

    Left out are those whose values are not numbers, texts, truth values or tuples of numbers.
    """
    parameters = list(inspect.signature(cls).parameters.values())[1:]
    hints = _hints(cls)
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = {}
    for parameter in parameters:
        hint = hints.get(parameter.name, Any)
        row = _argument(hint, parameter.default) if parameter.kind in named else None
        if row is not None:
            name = parameter.name
            row["description"] = DESCRIPTIONS.get(name, f"`{name}` of `{cls.__name__}`.")
            found[name] = row
    return found


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls.__init__)
    except (NameError, TypeError):
        return {}


def _argument(hint: Any, default: Any) -> dict[str, Any] | None:
    """Return an argument as plain data; None: it cannot be written."""
    if default is inspect.Parameter.empty:
        kind = next((k for k in _options(hint) if k in SIMPLE), None)
        return kind and {"type": SIMPLE[kind]}
    row: dict[str, Any] = {"default": default}
    options = list(_options(hint))
    choices = [value for o in options for value in typing.get_args(o) if _is_choice(o)]
    if isinstance(default, torch.Tensor):
        return None
    if isinstance(default, tuple):
        if not all(type(item) in (int, float) for item in default):
            return None
        row |= {"type": ["float"] * len(default), "default": [float(item) for item in default]}
        return row
    if choices:
        row |= {"choices": choices}
    elif default is None or type(default) not in SIMPLE:
        kinds = [SIMPLE[option] for option in options if option in SIMPLE]
        if default is not None or not kinds:
            return None
        row |= {"type": kinds[0]}
    elif type(default) is int and (float in options or not options):
        row |= {"type": "float" if float in options else "int", "default": default}
        if row["type"] == "float":
            row["default"] = float(default)
    else:
        row |= {"type": SIMPLE[type(default)]}
    return row | ({"optional": True} if default is None or types.NoneType in options else {})


def _is_choice(option: Any) -> bool:
    return typing.get_origin(option) is typing.Literal


def _options(hint: Any) -> Iterator[Any]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        for option in typing.get_args(hint):
            yield from _options(option)
    elif hint is not Any:
        yield hint


TRIED = (-1.0, 0.0, 1.0, 2.0)
"""The values of a number that show its bounds, if the class refuses them."""


def add_bounds(rows: dict[str, dict[str, Any]], build: Callable[..., Any]) -> None:
    """Add to each number the bounds that the class checks, as found by building it.

    Args:
        rows: From `arguments_of`, changed in place.
        build: Builds the class with some arguments, and raises where it refuses them.
    """
    for name, row in rows.items():
        default, kind = row.get("default"), row.get("type")
        if isinstance(kind, list):
            row["bounds"] = [
                _bounds(partial(_with_item, build, name, default, i), item)
                for i, item in enumerate(default)
            ]
        elif kind in ("int", "float"):
            number = int if kind == "int" else float
            bounds = _bounds(partial(_with_number, build, name, number), default)
            row["bounds"] = {key: number(value) for key, value in bounds.items()}


def _with_item(
    build: Callable[..., Any], name: str, default: tuple[float, ...], index: int, item: float
) -> None:
    build(**{name: (*default[:index], item, *default[index + 1 :])})


def _with_number(build: Callable[..., Any], name: str, kind: type, number: float) -> None:
    build(**{name: kind(number)})


def _bounds(build: Callable[[float], Any], default: float | None) -> dict[str, float]:
    below, zero, one, above = (_is_taken(build, value) for value in TRIED)
    found = {}
    if not below and (default is None or default >= 0):
        found["ge" if zero else "gt"] = 0.0
    if not above and (default is None or default <= 1):
        found["le" if one else "lt"] = 1.0
    return found


def _is_taken(build: Callable[[float], Any], value: float) -> bool:
    try:
        build(value)
    except Exception:
        return False
    return True
