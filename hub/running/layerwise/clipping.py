"""Norms of gradients, and clipping where not all of them are there at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils import get_total_norm

from hub.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from hub.running.layerwise.settings import Settings, Slot

PREVIOUS_NORM = "previous_grad_norm"
"""The key of the first parameter group that carries the last step's norm into checkpoints."""


def norm(gradient: Tensor) -> Tensor:
    """Return the Euclidean norm of a gradient, dense or sparse, a scalar."""
    values = gradient.coalesce().values() if gradient.is_sparse else gradient
    # The norm of 65536 elements of 256 is beyond fp16.
    dtype = torch.float32 if values.dtype is torch.float16 else None
    length: Tensor = torch.linalg.vector_norm(values, dtype=dtype)
    return length


def total(norms: Iterable[Tensor]) -> Tensor:
    """Return the norm of all gradients from those of each, as `clip_grad_norm_` does."""
    listed = list(norms)
    whole: Any = get_total_norm(listed) if listed else torch.zeros(())
    # Of sharded gradients it is a DTensor (torch 2.13), each process with its part of the sum.
    summed: Tensor = whole.full_tensor() if hasattr(whole, "full_tensor") else whole
    return summed


class Clipping:
    """Scales each gradient as it comes, by what is known of the others then."""

    def __init__(self, settings: Settings) -> None:
        self._value = settings.clip_grad_value
        self._limit: Any = settings.max_grad_norm
        self._mode = settings.clipping
        self._coefficient: Tensor | None = None
        """What all gradients of this step are multiplied by, once that is known."""
        self.loss_scale: float | None = None
        """What the loss of the running backward pass is multiplied by; norms and limits are of the
        gradients without it, and the optimizer's `step` divides by it."""

    @property
    def knows_total_norm(self) -> bool:
        """Whether it is known what all gradients are multiplied by."""
        return self._coefficient is not None

    def set_total_norm(self, whole: Tensor) -> None:
        """Take the norm of all gradients that are about to come."""
        if self._mode == "exact":
            self._coefficient = self._clip_coefficient(whole)

    def clip(self, slot: Slot, gradient: Tensor, first_group: dict[str, Any]) -> None:
        """Measure a gradient and clip it.

        Raises:
            UnsupportedError: The exact norm of all gradients has not been measured.
        """
        if self._mode == "exact" and slot.norm is not None:
            self._clip_values(gradient)
        else:
            slot.norm = self.measure(gradient)
        if self._limit is not None:
            gradient.mul_(self._coefficient_for(slot.norm, first_group).to(gradient.device))

    def measure(self, gradient: Tensor) -> Tensor:
        """Clip each element of a gradient, and return its norm."""
        self._clip_values(gradient)
        return norm(gradient) if self.loss_scale is None else norm(gradient) / self.loss_scale

    def _clip_values(self, gradient: Tensor) -> None:
        if self._value is None:
            return
        limit = self._value * (self.loss_scale or 1.0)
        if limit < torch.finfo(gradient.dtype).max:  # which clamp_ would not take
            gradient.clamp_(-limit, limit)

    def end(self, norms: list[Tensor], first_group: dict[str, Any]) -> None:
        """End the step, whose gradients had these norms."""
        self._coefficient = None
        if self._mode == "previous_norm" and norms:
            first_group[PREVIOUS_NORM] = total(norms).item()

    def _coefficient_for(self, own: Tensor, first_group: dict[str, Any]) -> Tensor:
        """Return what to multiply a gradient of this norm by."""
        if self._coefficient is not None:
            return self._coefficient
        if self._mode == "exact":
            raise UnsupportedError(
                "the norm of all gradients is not known before the backward pass",
                where="clipping='exact'",
                fix="call hub.grad_norm(optimizer, loss) before loss.backward()",
            )
        before = first_group.get(PREVIOUS_NORM)
        if self._mode == "per_parameter" or before is None:
            # In a first step nothing is known but that the whole is at least as large as this.
            return self._clip_coefficient(own)
        self._coefficient = self._clip_coefficient(torch.tensor(before))
        return self._coefficient

    def _clip_coefficient(self, whole: Tensor) -> Tensor:
        """As `torch.nn.utils.clip_grads_with_norm_` (torch 2.13), so that both round the same."""
        coefficient: Tensor = self._limit / (whole + 1e-6)
        return torch.clamp(coefficient, max=1.0)
