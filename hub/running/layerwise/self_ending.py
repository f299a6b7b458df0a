"""An engine whose steps end without `step()`, for LOMO.

LOMO does not require a call of `step()`, and Accelerate never makes one (1.15,
`AcceleratedOptimizer.step`). Until something calls `step()`, a step also ends when

- a backward pass begins after the gradients of updated parameters have been cleared,
- `zero_grad(set_to_none=False)` is called, whose zeros are for the next step,
- `begin_measuring` or `end_step_if_begun` is called, which need the final weights.

A parameter that lacks the gradients of some micro-batches is updated at the end of the backward
pass in which the first parameter was updated, or which ends an accumulation window of Accelerate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from hub.running.layerwise.engine import Engine
from hub.running.layerwise.released import was_cleared
from hub.running.layerwise.windows import Windows

if TYPE_CHECKING:
    from hub.running.layerwise.settings import Slot


class SelfEndingEngine(Engine):
    """Steps one optimizer inside the backward pass, and also ends the steps."""

    def __init__(self, *arguments: Any) -> None:
        self._is_stepped = False
        """Whether `step()` is called; then it ends the steps, as for any other optimizer."""
        super().__init__(*arguments)
        self._windows = Windows(self.settings.accumulation)

    def end_step(self) -> None:
        """End the step, as `step()` does; from then on only `step()` ends one."""
        super().end_step()
        self._is_stepped = True

    def end_step_if_begun(self) -> None:
        """End the step if it has begun, as nothing may call `step()`."""
        with self._lock:
            if self._updated:
                self._end_unnoticed()

    def drop_gradients(self, *, set_to_none: bool) -> None:
        """Drop accumulating gradients; used gradients are already in the weights."""
        with self._lock:
            if self._is_stepped or not self._updated:
                super().drop_gradients(set_to_none=set_to_none)
                return
            if not set_to_none:  # the zeros are for the next step
                self.end_step_if_begun()
            self._keeps_zeros = not set_to_none
            for slot in self._slots.values():
                slot.clear(set_to_none=set_to_none)

    def begin_measuring(self) -> None:
        """Let the next backward pass measure gradients; see `Engine.begin_measuring`."""
        self.end_step_if_begun()
        super().begin_measuring()

    def _begin_pass(self, slot: Slot, *, groups_are_new: bool) -> None:
        if groups_are_new:
            self._is_stepped = False
        if self._is_stepped:
            return
        if self._is_cleared():
            self._end_previous_step(slot)
        if self._windows.ends():
            self._update_rest_after_backward()

    def _count(self, slot: Slot) -> None:
        cleared = slot.count(self._processes.passes)
        if cleared and not self._is_stepped:
            self.messages.warn_cleared_gradients(cleared)

    def _update_complete(self, slot: Slot) -> None:
        if not (self._is_stepped or self._updated):
            self._update_rest_after_backward()
        self._update(slot)

    def _update_rest_after_backward(self) -> None:
        """Update the rest at the end of this backward pass, before a scheduler sets a new lr."""
        # FSDP ends its backward passes with this; torch 2.13 has no public equivalent.
        queue = torch.autograd.Variable._execution_engine.queue_callback  # noqa: SLF001
        queue(self._update_rest)

    def _is_cleared(self) -> bool:
        """Return whether the placeholders of updated parameters were cleared without a `step()`."""
        last = self._updated[-1].parameter if self._updated else None
        return last is not None and was_cleared(last)

    def _end_previous_step(self, slot: Slot) -> None:
        """End the previous step: this gradient is the first of the next one."""
        gradient, slot.parameter.grad = slot.parameter.grad, None
        self._end_unnoticed()
        slot.parameter.grad = gradient

    def _end_unnoticed(self) -> None:
        """End the step without the other processes: rank 0 alone may save a checkpoint."""
        self._update_rest()
        self._finish_step()
