"""Gradients in the coordinates of their bases, and updates on their way back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from hub.updates.low_rank import (
    project,
    project_back,
    refresh_bases,
    side_of,
    stacked_bases,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from hub.updates.same_shapes import Bucket

_OF_POWERS_OF_TWO = 0.5
"""Their mantissa, as `math.frexp` returns it."""


class Projected:
    """What `GaLoreProjector` of galore_torch 1.0 (galore_projector.py) does, for a bucket at once.

    The state has the basis itself, as `projector`, in place of an object.

    Args:
        bucket: Low-rank parameters. Its `gradient` becomes the projected one, of shape (parameters,
            rows, columns), one of the two not above the rank.
        numbers: Theirs, see `hub.updates.low_rank.NumbersLowRank`.
    """

    def __init__(self, bucket: Bucket, numbers: Mapping[str, int]) -> None:
        self._side = side_of(bucket.shape, bucket.group["proj_type"])
        self._scale = bucket.group["scale"]
        refresh_bases(bucket, self._side, numbers)
        self._bases = stacked_bases(bucket, self._side)
        bucket.gradient = project(bucket.gradient, self._bases, self._side)

    def back(self, update: Tensor) -> Tensor:
        """Return an update of the weights, scaled."""
        if _rounds(self._scale, update.dtype):
            return project_back(update, self._bases, self._side).mul_(self._scale)
        # It may be multiplied anywhere, so the smallest factor takes it.
        if self._side == "full":
            left, right = self._bases
            return project_back(update, (left * self._scale, right), self._side)
        return project_back(update, self._bases * self._scale, self._side)


def _rounds(scale: float, dtype: torch.dtype) -> bool:
    """Return whether a multiplication rounds: not by a power of two, unless numbers get too small.

    Updates in fp16 do.
    """
    mantissa, _ = math.frexp(scale)
    return mantissa != _OF_POWERS_OF_TWO or dtype == torch.float16
