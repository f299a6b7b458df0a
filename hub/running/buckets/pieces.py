"""Step a large parameter in pieces, if its class updates each element alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from torch.optim import Optimizer

    from hub.running.stand_ins import StandIn

    State = dict[str, Any]


def can_be_cut(optimizer: Optimizer, item: StandIn, most: int) -> bool:
    """Whether a parameter has more than so many elements, and nothing but elements to cut.

    Before its first step nobody knows of what form its state will be.
    """
    tensor, state = item.tensor, optimizer.state.get(item.parameter)
    if tensor.numel() <= most or hasattr(tensor, "to_local") or not state:
        return False
    return all(_has_elements(value, tensor.shape) for value in (tensor, tensor.grad)) and all(
        _is_number(value) or _has_elements(value, tensor.shape) for value in state.values()
    )


def in_pieces(
    optimizer: Optimizer,
    item: StandIn,
    elements: int,
    step: Callable[[Optimizer, list[StandIn]], object],
) -> None:
    """Step a parameter in pieces of so many elements, each with its part of gradient and state.

    Each piece starts from the same count; that of the last one stays.

    Args:
        optimizer: The optimizer.
        item: The parameter.
        elements: Of each piece but the last.
        step: Steps a piece, which is in one dimension.
    """
    states: Any = optimizer.state
    before = states.pop(item.parameter, {})
    after = dict(before)
    whole: Any = item.tensor
    weight, gradient = whole.detach().view(-1), whole.grad.view(-1)
    try:
        for start in range(0, weight.numel(), elements):
            place = slice(start, start + elements)
            piece = torch.nn.Parameter(weight[place])
            piece.grad = gradient[place]
            own = {key: _part(value, place) for key, value in before.items()}
            if own:
                states[item.parameter] = dict(own)
            try:
                step(optimizer, [replace(item, tensor=piece, first=item.first + start)])
            finally:
                new = states.pop(item.parameter, {})
            _put_back(after, new, own, place, item.tensor.shape)
    finally:
        if after:
            states[item.parameter] = after


def _is_number(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return not value.ndim
    return value is None or isinstance(value, bool | int | float)


def _has_elements(value: Any, shape: torch.Size) -> bool:
    """Whether a value has something for each element of a shape, in their order in memory."""
    return (
        isinstance(value, torch.Tensor)
        and value.shape == shape
        and value.layout is torch.strided
        and value.is_contiguous()
        and not hasattr(value, "__tensor_flatten__")
    )


def _part(value: Any, place: slice) -> Any:
    """Return a view of some elements, or else a value of its own for the piece."""
    if not isinstance(value, torch.Tensor):
        return value
    return value.detach().view(-1)[place] if value.ndim else value.clone()


def _put_back(after: State, new: State, own: State, place: slice, shape: torch.Size) -> None:
    """Take over the state of a piece; what is not a view of the whole is copied.

    Args:
        after: The state of the parameter, which is changed.
        new: That of the piece, after its step.
        own: That of the piece, before.
        place: Of the piece.
        shape: Of the parameter.
    """
    for key, value in new.items():
        if not isinstance(value, torch.Tensor) or not value.ndim:
            after[key] = value
        elif value is not own.get(key):
            after[key] = whole = _whole(after.get(key), value, shape)
            whole.view(-1)[place] = value


def _whole(known: Tensor | None, part: Tensor, shape: torch.Size) -> Tensor:
    """Return a tensor for the state of all pieces, the known one if it will do."""
    if known is not None and known.dtype is part.dtype and known.device == part.device:
        return known
    return torch.zeros(shape, dtype=part.dtype, device=part.device)
