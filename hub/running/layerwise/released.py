"""What is in `parameter.grad` between an update in the backward pass and `step()`.

| asked of it | answer |
|---|---|
| its Euclidean norm, alone or among others | the norm that the gradient had |
| `mul_` (clipping), `zero_` | nothing; a factor that clips costs a warning |
| `detach` | itself |
| `add_` (another backward pass) | the error for a second backward pass |
| anything else | an error: there is nothing to read |
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
    """A gradient that has been used and freed: a shape, and the norm that it had.

    A trainer that measures gradients after the backward pass reads the true norm, where it would
    find nothing and log 0. What would change the gradient cannot take effect: scaling it, as
    `torch.nn.utils.clip_grad_norm_` does, is reported, and everything else is refused.
    """

    had_norm: Tensor | None
    """Of the gradient as it came, a scalar."""
    messages: Callable[[], Messages | None]
    """A weak reference to those of the engine that used it."""

    @classmethod
    def of(cls, slot: Slot, messages: Callable[[], Messages | None]) -> ReleasedGradient:
        """Return one for a parameter that has been updated; it has no memory."""
        parameter = slot.parameter
        released: ReleasedGradient = cls._make_wrapper_subclass(
            cls,
            parameter.shape,
            strides=parameter.stride(),
            dtype=parameter.dtype,
            device=parameter.device,
        )
        released.had_norm, released.messages = slot.norm, messages
        return released

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
        """Answer what a trainer asks of gradients after the backward pass."""
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
            f"the gradients are spent: each was used and freed in the backward pass, and '{func}' "
            "has nothing to read",
            where="parameter.grad",
            fix="read gradients before that with register_hook, their norm with hub.grad_norm, or "
            "use the optimizer's eager form",
        )


def _is_euclidean(args: tuple[Any, ...]) -> bool:
    """Whether a call of a norm names no order, or that of the Euclidean one."""
    return len(args) < 2 or args[1] == 2  # noqa: PLR2004
