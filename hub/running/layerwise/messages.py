"""What the engine warns of, and the errors it raises, with how far the step has come."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from hub.errors import HubError, HubWarning, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from hub.running.layerwise.settings import Settings, Slot

_END_EACH = "call optimizer.step() after each backward pass, also after one that failed"
_OF_ANOTHER = (
    "a backward pass for another optimizer, as that of a generator's loss through a discriminator, "
    "must leave these parameters out: loss.backward(inputs=...) or requires_grad_(False)"
)


class Messages:
    """Words for one optimizer; each warning comes once.

    Args:
        settings: Of the engine.
        slots: All parameters.
        updated: Those that this step has updated, in order.
    """

    def __init__(
        self, settings: Settings, slots: Collection[object], updated: Sequence[Slot]
    ) -> None:
        self._settings, self._slots, self._updated = settings, slots, updated
        self._warned = {"clipping": settings.max_grad_norm is not None, "cleared": False}

    def _progress(self) -> str:
        """Return how many parameters are updated, and which was the last."""
        last = f", the last of them {self._updated[-1].name}" if self._updated else ""
        return f"{len(self._updated)} of {len(self._slots)} parameters are updated{last}"

    def warn_late_clipping(self, factor: Any) -> None:
        """Warn that somebody clips gradients that have already been used.

        A factor of 1 clips nothing: Transformers 5.23 measures norms so (`_get_grad_norm`).
        """
        if self._warned["clipping"] or torch.as_tensor(factor).eq(1).all():
            return
        self._warn_once(
            "clipping",
            f"{self._settings.name} updates in the backward pass: gradients that are clipped after "
            "it have no effect any more; build with max_grad_norm and clipping='exact', "
            "'previous_norm' or 'per_parameter', and turn the trainer's own clipping off",
        )

    def warn_cleared_gradients(self, arrived: int) -> None:
        """Warn that a window was given up, where nobody has called `step()` so far."""
        self._warn_once(
            "cleared",
            f"gradients of {arrived} of {self._settings.accumulation} micro-batches were cleared, "
            f"and {self._settings.name} has not used them; if a step was meant to end there, call "
            "optimizer.step(), or let the trainer create the optimizer (hub.trainers)",
        )

    def failed(self, slot: Slot, error: Exception) -> HubError:
        """Return what to raise where an update has."""
        return HubError(
            f"the update of {slot.name} failed: {error}",
            where=self._settings.name,
            fix=f"{self._progress()}; optimizer.step() ends this step without the others",
        )

    def second_backward(self) -> HubError:
        """Return what to raise for a gradient that comes too late."""
        return UnsupportedError(
            f"another gradient for a parameter that {self._settings.name} has already updated in "
            f"this step: {self._progress()}",
            where="loss.backward()",
            fix=f"{_END_EACH}; to accumulate, build with gradient_accumulation_steps; layers that "
            "are used twice under activation checkpointing need use_reentrant=False; "
            f"{_OF_ANOTHER}",
        )

    def used_already(self) -> HubError:
        """Return what to raise for gradients that cannot be dropped any more."""
        return UnsupportedError(
            f"zero_grad() comes too late for gradients that {self._settings.name} has already "
            f"used: {self._progress()}",
            where="optimizer.zero_grad()",
            fix=f"{_END_EACH}; {_OF_ANOTHER}",
        )

    def _warn_once(self, kind: str, message: str) -> None:
        if not self._warned[kind]:
            self._warned[kind] = True
            warnings.warn(message, HubWarning, stacklevel=3)
