"""Detect where Accelerate ends an accumulation window, whose last one may be shorter."""

from __future__ import annotations

import sys
from typing import Any


class Windows:
    """Follows Accelerate for an optimizer whose `step()` Accelerate never calls.

    Accelerate's state belongs to the process, and another loop may have left it behind. So it
    counts only if it has changed during this optimizer's backward passes, or if it belongs to a
    loop that accumulates the same number of micro-batches and is iterating over its data.

    Args:
        accumulation: Micro-batches in a full window.
    """

    def __init__(self, accumulation: int) -> None:
        self._accumulation = accumulation
        self._has_changed = False

    def ends(self) -> bool:
        """Return whether the running backward pass ends a window; call once in each pass.

        Transformers' Trainer sets `sync_gradients` as well (5.23, `_run_epoch`).
        """
        state = _state()
        if state is None or self._accumulation == 1:
            return False
        if not state.sync_gradients:
            self._has_changed = True
            return False
        return self._has_changed or (state.num_steps == self._accumulation and state.in_dataloader)


def _state() -> Any:
    """Return Accelerate's `GradientState` (1.15) if it exists, without creating it."""
    module = sys.modules.get("accelerate.state")
    if module is None or not module.GradientState._shared_state:  # noqa: SLF001 - no public equivalent
        return None
    return module.GradientState()
