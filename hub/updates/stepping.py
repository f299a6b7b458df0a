"""The `step` around an update that only its optimizer knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


class StepWithClosure:
    """Mixin whose step calls the closure, and then updates everything without gradients.

    List it before the upstream class, and define `_update_all()`.
    """

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; `closure`, if any, reevaluates the model and returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if torch.is_grad_enabled():
            with torch.no_grad():
                self._update_all()
        else:  # inside the backward pass, where entering `no_grad` takes as long as a small update
            self._update_all()
        return loss

    def _update_all(self) -> None:
        """Update each parameter that has a gradient."""
        raise NotImplementedError
