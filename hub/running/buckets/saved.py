"""The form in which state dicts hold the bits that bf16 and fp16 weights lack.

Live, they are int16, which neither gloo nor NCCL sends. Saved, each is two bytes, in one more
dimension at the end, of the same memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from hub.measuring import local_part
from hub.running.buckets.rounding import BITS, like

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from torch.optim import Optimizer

    State = dict[Any, Any]


def save_bits(optimizer: Optimizer) -> None:
    """Make an optimizer save and load bits as bytes.

    Call it before `save_sharded`, and before evaluation weights are followed.
    """

    def saved(_: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        return {**state_dict, "state": _changed(state_dict["state"], _as_bytes)}

    def loaded(optimizer: Optimizer) -> None:
        optimizer.state.update(_changed(optimizer.state, _as_numbers))

    optimizer.register_state_dict_post_hook(saved)
    optimizer.register_load_state_dict_post_hook(loaded)


def _changed(states: State, change: Callable[[Tensor], Tensor]) -> State:
    """Return the states of parameters with their bits changed."""
    return {
        key: {**state, BITS: change(state[BITS])}
        if isinstance(state, dict) and BITS in state
        else state
        for key, state in states.items()
    }


def _as_bytes(bits: Tensor) -> Tensor:
    return like(local_part(bits).unsqueeze(-1).view(torch.uint8), bits)


def _as_numbers(saved: Tensor) -> Tensor:
    numbers = local_part(saved).view(torch.int16).squeeze(-1)
    return like(numbers, saved[..., 0]) if hasattr(saved, "to_local") else numbers
