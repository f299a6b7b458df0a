"""Whether `torch.compile` has here what it needs. Imports nothing before it is asked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hub.backend import load
from hub.errors import UnsupportedError
from hub.spec import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hub.spec import BuildContext


def refuse_without_compiler(name: str, context: BuildContext, instead: str) -> Iterator[Finding]:
    """Refuse an update that fails to compile in the first step.

    With TORCHDYNAMO_DISABLE=1 torch compiles nothing, and nothing fails.

    Args:
        name: As in `hub.build`.
        context: Of the build.
        instead: What works without a compiler, in the imperative.
    """
    if os.environ.get("TORCHDYNAMO_DISABLE") == "1":
        return
    for problem, fix in problems(context.precision.devices):
        yield Finding.refuse(
            UnsupportedError(
                f"{name} steps through torch.compile, which {problem}",
                where=name,
                fix=f"{fix}{instead}",
            )
        )


def problems(devices: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield what keeps `torch.compile` from compiling for these kinds of devices, and a fix.

    A fix ends in "or", for another one to follow, or is empty.
    """
    if load("torch._dynamo").config.disable:
        yield "TORCH_COMPILE_DISABLE breaks", ""
    if "cpu" in devices:
        try:
            load("torch._inductor.cpp_builder").get_cpp_compiler()
        except (RuntimeError, OSError):
            yield "finds no C++ compiler that works", "install g++ or set CXX, or "
    if "cuda" in devices and not load("torch.utils._triton").has_triton():
        yield "needs triton on CUDA, and finds none", "install it, or "
