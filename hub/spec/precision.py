"""The precision that a model trains in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

MODES: dict[str, str] = {
    "fp32": "fp32",
    "bf16": "bf16",
    "fp16": "fp16",
    "fp64": "fp64",
    "bf16-mixed": "fp32",
    "fp16-mixed": "fp32",
}
"""Every mode, and the dtype of its parameters. "-mixed" is autocast with fp32 parameters."""


def dtype_name(dtype: Hashable) -> str:
    """Return the short name of a torch dtype: "fp32", "bf16", "fp16", "fp64", or torch's own."""
    return _dtype_name(dtype)


@cache
def _dtype_name(dtype: Hashable) -> str:
    name = str(dtype).removeprefix("torch.")
    short = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "float64": "fp64"}
    return short.get(name, name)


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The precision that a model trains in, as detected from its parameters or declared.

    `dtypes` and `devices` are those of the trainable parameters, ordered by number of elements,
    largest first.
    """

    mode: str
    """One of `hub.spec.MODES`, such as "fp32", "bf16" or "bf16-mixed"."""
    dtypes: tuple[str, ...]
    """Short dtype names: "fp32", "bf16", "fp16", "fp64"."""
    devices: tuple[str, ...]
    """Device types: "cpu", "cuda", "meta"."""
    grad_scaler: bool = False
    """Whether the loss is scaled, as fp16 training needs."""
