"""Findings that plugins with low-rank projections share. Imports no torch."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from hub.spec import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hub.spec import BuildContext, ParameterGroup

_LARGE = 512
"""The smaller side of a weight whose SVD takes long."""


def slow_refresh(context: BuildContext) -> Iterator[Finding]:
    """Note what the SVDs of large weights cost.

    Args:
        context: Of a build whose low-rank groups have `rank` and `projection`; and `proj`, if
            something else than an SVD may find their bases.
    """
    large = [
        tuple(parameter.shape)
        for group in context.groups
        if group.low_rank and _takes_svds(group)
        for _, parameter in group.parameters
        if min(parameter.shape) >= max(_LARGE, 2 * group.overrides["rank"])
    ]
    if large:
        rows, columns = max(large, key=prod)
        yield Finding.note(
            f"every update_proj_gap steps take the SVDs of large weights: {len(large)} here, the "
            f"largest {rows}x{columns}",
            "projection='randomized' finds nearly the same directions in a tenth of the time or "
            "less, and refresh='staggered' spreads the work over all steps",
        )


def _takes_svds(group: ParameterGroup) -> bool:
    how = group.overrides
    return bool(how["projection"] == "svd" and how.get("proj", "svd") == "svd")
