"""Whether `torch.compile` has here what it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch._dynamo
from torch._inductor.cpp_builder import get_cpp_compiler
from torch.utils._triton import has_triton

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def problems(devices: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield what keeps `torch.compile` from compiling for these kinds of devices, and a fix."""
    if torch._dynamo.config.disable:  # noqa: SLF001 - has no other name
        yield "TORCH_COMPILE_DISABLE breaks", ""
    if "cpu" in devices:
        try:
            get_cpp_compiler()
        except (RuntimeError, OSError):
            yield "finds no C++ compiler that works", "install g++ or set CXX, or "
    if "cuda" in devices and not has_triton():
        yield "needs triton on CUDA, and finds none", "install it, or "
