"""Gradient norms, and clipping without all gradients in memory at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.linalg import vector_norm
from torch.nn.utils import get_total_norm

from hub.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor
    from torch.optim import Optimizer

    from hub.running.layerwise.settings import Settings, Slot

PREVIOUS_NORM = "previous_grad_norm"
"""The key of the first parameter group that stores the last step's norm in checkpoints."""


def norm(gradient: Tensor) -> Tensor:
    """Return the Euclidean norm of a gradient, dense or sparse, a scalar."""
    values = gradient.coalesce().values() if gradient.is_sparse else gradient
    if values.dtype is torch.float16:  # would overflow: 65536 elements of 256 have the norm 65536
        return cast("Tensor", vector_norm(values, dtype=torch.float32))
    return cast("Tensor", vector_norm(values))


def total(norms: Iterable[Tensor]) -> Tensor:
    """Return the norm of all gradients from their individual norms, as `clip_grad_norm_` does."""
    listed = list(norms)
    whole: Any = get_total_norm(listed) if listed else torch.zeros(())
    # For sharded gradients this is a DTensor (torch 2.13): each process has its part of the sum.
    summed: Tensor = whole.full_tensor() if hasattr(whole, "full_tensor") else whole
    return summed


def share_previous_norm(first_groups: Iterable[dict[str, Any]]) -> None:
    """Replace the last step's norm of each of several optimizers by that of all together.

    Args:
        first_groups: The first parameter group of each.
    """
    groups = [group for group in first_groups if group.get(PREVIOUS_NORM) is not None]
    whole = math.hypot(*(group[PREVIOUS_NORM] for group in groups))
    for group in groups:
        group[PREVIOUS_NORM] = whole


class Clipping:
    """Scales each gradient as soon as it is complete, by what is known about the others by then."""

    def __init__(self, settings: Settings) -> None:
        self._value = settings.clip_grad_value
        self._limit: Any = settings.max_grad_norm
        self._mode = settings.clipping
        self._coefficient: Tensor | None = None
        """The factor on all gradients of this step, once it is known."""
        self.loss_scale: float | None = None
        """The factor on the loss in the running backward pass. Norms and limits are those of the
        unscaled gradients; the optimizer's `step` divides by it."""

    @property
    def knows_total_norm(self) -> bool:
        """Whether the factor on all gradients is known."""
        return self._coefficient is not None

    def set_total_norm(self, whole: Tensor) -> None:
        """Set the norm of all gradients of the next backward pass."""
        if self._mode == "exact":
            self._coefficient = self._clip_coefficient(whole)

    def clip(self, slot: Slot, optimizer: Optimizer) -> None:
        """Measure a gradient and clip it.

        Raises:
            UnsupportedError: The exact norm of all gradients has not been measured.
        """
        gradient = slot.gradient
        if self._limit is None and self._value is None and self.loss_scale is None:
            slot.norm = norm(gradient)  # without the rest, which takes as long as a small update
            return
        if self._mode == "exact" and slot.norm is not None:
            self._clip_values(gradient)
        else:
            slot.norm = self.measure(gradient)
        if self._limit is not None:
            first_group = optimizer.param_groups[0]
            gradient.mul_(self._coefficient_for(slot.norm, first_group).to(gradient.device))

    def measure(self, gradient: Tensor) -> Tensor:
        """Clip each element of a gradient, and return its norm."""
        self._clip_values(gradient)
        return norm(gradient) if self.loss_scale is None else norm(gradient) / self.loss_scale

    def _clip_values(self, gradient: Tensor) -> None:
        if self._value is None:
            return
        limit = self._value * (self.loss_scale or 1.0)
        if limit < torch.finfo(gradient.dtype).max:  # clamp_ refuses larger limits
            gradient.clamp_(-limit, limit)

    def end(self, norms: list[Tensor], first_group: dict[str, Any]) -> None:
        """End the step, given the norms of its gradients."""
        self._coefficient = None
        if self._mode == "previous_norm" and norms:
            first_group[PREVIOUS_NORM] = total(norms).item()

    def _coefficient_for(self, own: Tensor, first_group: dict[str, Any]) -> Tensor:
        """Return the factor on a gradient of this norm."""
        if self._coefficient is not None:
            return self._coefficient
        if self._mode == "exact":
            raise UnsupportedError(
                "the norm of all gradients has not been measured before the backward pass",
                where="clipping='exact'",
                fix="call hub.grad_norm(optimizer, loss) before loss.backward()",
            )
        before = first_group.get(PREVIOUS_NORM)
        if self._mode == "per_parameter" or before is None:
            # All that a first step knows is that the total norm is at least as large as this one.
            return self._clip_coefficient(own)
        self._coefficient = self._clip_coefficient(torch.tensor(before))
        return self._coefficient

    def _clip_coefficient(self, whole: Tensor) -> Tensor:
        """Do as `torch.nn.utils.clip_grads_with_norm_` (torch 2.13), so that both round alike."""
        coefficient: Tensor = self._limit / (whole + 1e-6)
        return torch.clamp(coefficient, max=1.0)
