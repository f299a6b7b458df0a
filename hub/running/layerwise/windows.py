"""Where Accelerate ends a window of micro-batches, which may be shorter than all others."""

from __future__ import annotations

import sys
from typing import Any


class Windows:
    """Follows Accelerate for an optimizer whose `step()` it never calls.

    Its state is the process's, and what another loop has left there must not count. So it is
    believed once it has changed under this optimizer's backward passes, or where it is that of a
    loop that accumulates as many and is inside of its data.

    Args:
        accumulation: Micro-batches in a whole window.
    """

    def __init__(self, accumulation: int) -> None:
        self._accumulation = accumulation
        self._is_told = False

    def ends(self) -> bool:
        """Return whether a window ends with the backward pass that runs; ask in each of them.

        The Trainer of Transformers writes `sync_gradients` as well (5.23, `_run_epoch`).
        """
        state = _state()
        if state is None or self._accumulation == 1:
            return False
        if not state.sync_gradients:
            self._is_told = True
            return False
        return self._is_told or (state.num_steps == self._accumulation and state.in_dataloader)


def _state() -> Any:
    """Return Accelerate's (1.15, `GradientState`), if it has one; makes none."""
    module = sys.modules.get("accelerate.state")
    if module is None or not module.GradientState._shared_state:  # noqa: SLF001 - nothing public tells
        return None
    return module.GradientState()
