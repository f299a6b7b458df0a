"""What a CUDA graph of `capturable` steps would not repeat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.arguments import InBackward
from hub.errors import UnsupportedError

if TYPE_CHECKING:
    from pydantic import BaseModel

_ON_THE_HOST = {
    "rounding": "rounding makes other copies and random bits in each step",
    "offload": "offload moves the state in each step",
}
"""What hub does beside kernels, by the argument that asks for it."""


def check_capturable(arguments: BaseModel) -> None:
    """Check that a step which is to be captured does nothing on the host.

    Raises:
        UnsupportedError: It does.
    """
    if not getattr(arguments, "capturable", False):
        return
    if isinstance(arguments, InBackward):
        raise _error("a layerwise form counts gradients on the host", "the name without _layerwise")
    for key, reason in _ON_THE_HOST.items():
        if getattr(arguments, key, None) is not None:
            raise _error(reason, f"{key}=None")


def _error(reason: str, instead: str) -> UnsupportedError:
    return UnsupportedError(
        f"no CUDA graph can repeat the step: {reason}",
        where="capturable",
        fix=f"use {instead}, or leave out capturable",
    )
