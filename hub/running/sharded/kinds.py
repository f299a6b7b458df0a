"""How each sharded parameter is stepped, from what its optimizer's spec declares."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from hub.spec import Sharding, Trait

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hub.spec import Kind, OptimizerSpec


def sharding_of(spec: OptimizerSpec) -> Sharding | None:
    """Return how an optimizer steps sharded parameters, or None if it cannot."""
    if spec.sharding is None and Trait.PER_PARAMETER in spec.traits and not spec.why_not_sharded:
        return Sharding()
    return spec.sharding


def kind_of(
    sharding: Sharding, arguments: Mapping[str, Any], shape: Sequence[int], rows: Sequence[int]
) -> Kind:
    """Return how a parameter sharded by rows is stepped.

    Args:
        sharding: What the optimizer's spec declares.
        arguments: The optimizer's arguments.
        shape: The whole parameter's shape.
        rows: How many rows of its first dimension each rank has.
    """
    if sharding.kind != "rows":
        return sharding.kind
    if sharding.whole_with and arguments[sharding.whole_with]:
        return "whole"
    smallest = _number(sharding.quantized_from, arguments)
    if sharding.elementwise or prod(shape) < smallest:  # not quantized, here or there
        return "rows" if min(rows) else "whole"  # packages fail with empty tensors
    row = prod(shape[1:])
    is_aligned = row % _number(sharding.block, arguments) == 0
    # State of blocks is split like rows if these are: then each rank's part is a multiple of both.
    is_even = min(rows) == max(rows)
    return "rows" if is_aligned and is_even and min(rows) * row >= smallest else "whole"


def _number(value: int | str, arguments: Mapping[str, Any]) -> int:
    return int(arguments[value]) if isinstance(value, str) else value
