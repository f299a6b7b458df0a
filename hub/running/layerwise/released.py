"""The placeholder in `parameter.grad` between an update in the backward pass and `step()`.

| operation | result |
|---|---|
| its Euclidean norm, alone or among others | the norm that the gradient had |
| `mul_` (clipping), `zero_` | nothing changes; a factor that clips causes a warning |
| `detach` | itself |
| `add_` (another backward pass) | the error for a second backward pass |
| anything else | an error: it has no data |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_leaves

from hub.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from hub.running.layerwise.messages import Messages
    from hub.running.layerwise.settings import Slot


class ReleasedGradient(torch.Tensor):
    """A gradient that has been used and freed: it keeps its shape and its norm, but no data.

    A trainer that measures gradients after the backward pass reads the true norm; without the
    placeholder it would find no gradients and log 0. Changing the gradient no longer has an effect:
    scaling it, as `torch.nn.utils.clip_grad_norm_` does, causes a warning, and everything else an
    error.
    """

    had_norm: Tensor | None
    """The norm of the gradient before clipping, a scalar."""
    messages: Callable[[], Messages | None]
    """A weak reference to the messages of the engine that used the gradient."""

    @classmethod
    def of(
        cls, tensor: Tensor, had_norm: Tensor | None, messages: Callable[[], Messages | None]
    ) -> ReleasedGradient:
        """Return the placeholder for the gradient of a tensor; it takes no memory."""
        placeholder: ReleasedGradient = cls._make_wrapper_subclass(
            cls, tensor.shape, strides=tensor.stride(), dtype=tensor.dtype, device=tensor.device
        )
        placeholder.had_norm, placeholder.messages = had_norm, messages
        return placeholder

    def __repr__(self) -> str:  # type: ignore[override]  # torch's takes the contents
        return f"ReleasedGradient(norm={self.had_norm}, shape={tuple(self.shape)})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's stub lacks the default of args
        cls,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Any = None,
    ) -> Any:
        """Answer the operations that trainers use on gradients after the backward pass."""
        operation = func.overloadpacket.__name__
        many = operation.startswith("_foreach_")
        one = next(item for item in tree_leaves(args) if isinstance(item, cls))
        messages = one.messages()
        match operation:
            case "linalg_vector_norm" if _is_euclidean(args):
                return one.had_norm
            case "_foreach_norm" if _is_euclidean(args):
                return [item.had_norm if isinstance(item, cls) else item.norm() for item in args[0]]
            case "mul_" | "_foreach_mul_":
                if messages is not None:
                    messages.warn_late_clipping(args[1])
                return None if many else args[0]
            case "zero_" | "_foreach_zero_":
                return None if many else args[0]
            case "detach":
                return one
            case "add_" | "add" if messages is not None:
                raise messages.second_backward()
        raise UnsupportedError(
            f"the gradients were already applied and released during the backward pass: '{func}' "
            "has no data to read",
            where="parameter.grad",
            fix="read gradients during the backward pass with register_hook, read their norm with "
            "hub.grad_norm, or use the optimizer's eager form",
        )


def release(slot: Slot, messages: Callable[[], Messages | None]) -> None:
    """Put a placeholder into the place of a gradient that has been used.

    The one of the last step, because making one takes longer than a small update. That of a DTensor
    is a DTensor around the placeholder of this process's part. Other subclasses accept only
    gradients like themselves, and get None.
    """
    parameter, placeholder = slot.parameter, slot.placeholder
    if placeholder is not None:
        placeholder.had_norm = slot.norm
        try:
            parameter.grad = placeholder
        except RuntimeError:  # the parameter has another shape, dtype or device than then
            slot.placeholder = None
        else:
            return
    parameter.grad = _new(slot, messages)


def _new(slot: Slot, messages: Callable[[], Messages | None]) -> Tensor | None:
    parameter: Any = slot.parameter
    if type(parameter) is torch.nn.Parameter:
        slot.placeholder = new = ReleasedGradient.of(parameter, slot.norm, messages)
        return new
    if hasattr(parameter, "device_mesh"):
        had_norm: Any = slot.norm
        own = ReleasedGradient.of(parameter.to_local(), _local(had_norm), messages)
        return _like(parameter, own)
    return None


def was_cleared(parameter: Tensor) -> bool:
    """Return whether the placeholder of an updated parameter has been removed."""
    has_one = type(parameter) is torch.nn.Parameter or hasattr(parameter, "device_mesh")
    return has_one and not isinstance(_local(parameter.grad), ReleasedGradient)


def _local(tensor: Any) -> Any:
    """Return this process's part of a DTensor, without an operation; others as they are."""
    return getattr(tensor, "_local_tensor", tensor)


def _like(parameter: Any, own: Tensor) -> Tensor:
    """Return a DTensor that is laid out like a parameter; `from_local` would read the data."""
    from torch.distributed.tensor import DTensor

    whole: Tensor = DTensor(own, parameter._spec, requires_grad=False)  # type: ignore[no-untyped-call]  # noqa: SLF001 - as FSDP2
    return whole


def _is_euclidean(args: tuple[Any, ...]) -> bool:
    """Return whether a call computes the Euclidean norm, by default or by its order."""
    return len(args) < 2 or args[1] == 2  # noqa: PLR2004
