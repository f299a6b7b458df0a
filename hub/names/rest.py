"""Arguments of the optimizer that trains what another one, of matrices only, leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hub.errors import OptimArgsError
from hub.text import shown

REST = "rest"
"""The argument that describes it; "rest.lr" is one of its own."""


def without_rest(name: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return an optimizer's own arguments, and those of its rest without their prefix.

    Args:
        name: The optimizer, for messages.
        given: All of them.

    Raises:
        OptimArgsError: `rest` is not a mapping.
    """
    own = {k: v for k, v in given.items() if k != REST and not str(k).startswith(f"{REST}.")}
    whole = given.get(REST, {})
    if not isinstance(whole, Mapping):
        raise OptimArgsError(
            f"{REST}={shown(whole)} is not a mapping of arguments",
            where=f"{REST} of {name}",
            fix=f'write {REST}={{"lr": 1e-3}} in Python, or "{REST}.lr=1e-3" in a text',
        )
    rest = {str(k).removeprefix(f"{REST}."): v for k, v in given.items() if k not in (*own, REST)}
    return own, {**whole, **rest}
