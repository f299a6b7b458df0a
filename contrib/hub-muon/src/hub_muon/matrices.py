"""Which matrices a parameter consists of. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from math import prod

from hub.arguments import name_matcher
from hub.errors import OptimArgsError, UnsupportedError
from hub.text import shape_text

_DIMENSIONS = (2, 3)
"""Of a matrix, and of a stack of matrices."""


def matrices_of(name: str, shape: Sequence[int], blocks: Mapping[str, int]) -> tuple[int, int, int]:
    """Return number, rows and columns of the matrices of a parameter, all of one shape.

    Args:
        name: The parameter's name.
        shape: Its shape, as (out, in) or (number of matrices, out, in).
        blocks: The argument of this name.

    Raises:
        UnsupportedError: It is neither a matrix nor a stack of matrices.
        OptimArgsError: Its rows cannot be cut into blocks of that many.
    """
    if len(shape) not in _DIMENSIONS:
        raise UnsupportedError(
            f"Muon trains matrices and stacks of matrices, and {name} is neither "
            f"({shape_text(shape)})",
            where=name,
            fix="train it with another optimizer",
        )
    *stacked, out, columns = shape
    pattern = next((pattern for pattern in blocks if _matches(pattern, name)), None)
    if pattern is None:
        return prod(stacked), out, columns
    rows = blocks[pattern]
    if out % rows:
        raise OptimArgsError(
            f"{name} has {out} rows, which blocks of {rows} do not divide",
            where=f"blocks {pattern!r}",
            fix="use a divisor, or a pattern that does not match it",
        )
    return prod(stacked) * (out // rows), rows, columns


def is_matched(pattern: str, names: Sequence[str]) -> bool:
    """Whether a pattern of `blocks` matches any of the names.

    Raises:
        TargetModulesError: It is not a pattern.
    """
    return any(_matches(pattern, name) for name in names)


@cache
def _matches(pattern: str, name: str) -> bool:
    return name_matcher(pattern, where="blocks")(name)
