"""Run a step on tensors without values, also where its code reads values."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from collections.abc import Iterator

READS = torch.ops.aten._local_scalar_dense.default  # noqa: SLF001 - what `item()` calls


@contextmanager
def fake_tensors(*, any_value: bool = False) -> Iterator[None]:
    """Let everything create tensors that have shapes and no values.

    Args:
        any_value: Whether code that reads a value gets some number. What it computes then has the
            right shapes if these do not depend on values, which has to be checked. Otherwise
            reading a value is an exception.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        if not any_value:
            yield
            return
        with _AnyValue():  # type: ignore[no-untyped-call]
            yield


class _AnyValue(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Answers the operators that a fake tensor does not."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, or return what stands for its result."""
        if func is READS:
            number = 1.0 if args[0].is_floating_point() else 1
            return True if args[0].dtype is torch.bool else number
        if _only_writes(func):
            return None
        return func(*args, **(kwargs or {}))


def _only_writes(func: Any) -> bool:
    """Whether an operator, such as bitsandbytes' updates, has no result and no fake of itself."""
    writes = not func._schema.returns  # noqa: SLF001
    return writes and not torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "Meta")  # noqa: SLF001
