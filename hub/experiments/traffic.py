"""How much memory traffic a step of an optimizer cannot do without."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def step_bytes(model: nn.Module, state: int) -> int:
    """Return the bytes that a step has to move.

    Each trained parameter is read and written, each gradient is read, and all state is read and
    written, once: 28 bytes for a parameter of AdamW in fp32. What is in fact moved is more, where
    code passes over a tensor several times, or less, where it leaves tensors as they are.

    Args:
        model: Its parameters have gradients of the same size.
        state: Bytes of state.
    """
    trained = sum(each.nbytes for each in model.parameters() if each.requires_grad)
    return 3 * trained + 2 * state
