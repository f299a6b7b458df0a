"""Whether `torch.compile` has here what it needs. Imports nothing before it is asked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from hub.backend import load
from hub.errors import UnsupportedError
from hub.spec import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hub.spec import BuildContext


def compiles(name: str, optim_args: Any, context: BuildContext) -> Iterator[Finding]:
    """Say what a compiled update costs, and turn it off or refuse it where it does not work."""
    if not getattr(optim_args, "compile", False):
        return
    if any(hasattr(parameter, "device_mesh") for parameter in context.parameters()):
        yield Finding.adjust(
            "compile=True is turned off for sharded parameters (DTensors)",
            "leave it out",
            instead={"compile": False},
        )
        return
    yield from refuse_without_compiler(name, context, "leave out compile=True")
    count = len(set(context.precision.dtypes))
    yield Finding.note(
        f"the first step compiles {count} kernel{'s' if count > 1 else ''}, one for each dtype of "
        "weights, which takes seconds for each; no other shape or learning rate compiles again"
    )


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
