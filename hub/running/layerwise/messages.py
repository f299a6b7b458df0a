"""The engine's warnings and errors, which report how far the step got."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from hub.errors import HubError, HubWarning, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from hub.running.layerwise.settings import Settings, Slot

_END_EACH = "call optimizer.step() after each backward pass, even one that failed"
_OF_ANOTHER = (
    "a backward pass for another optimizer, such as a generator's loss through a discriminator, "
    "must exclude these parameters: loss.backward(inputs=...) or requires_grad_(False)"
)


class Messages:
    """Words the engine's warnings and errors for one optimizer; each warning is issued once.

    Args:
        settings: The engine's settings.
        slots: One for each parameter.
        updated: The slots updated in this step, in order.
    """

    def __init__(
        self, settings: Settings, slots: Collection[object], updated: Sequence[Slot]
    ) -> None:
        self._settings, self._slots, self._updated = settings, slots, updated
        self._warned = {"clipping": settings.max_grad_norm is not None, "cleared": False}

    def _progress(self) -> str:
        """Return how many parameters have been updated, and which was the last."""
        last = f", the last of them {self._updated[-1].name}" if self._updated else ""
        return f"{len(self._updated)} of {len(self._slots)} parameters are updated{last}"

    def warn_late_clipping(self, factor: Any) -> None:
        """Warn that gradients are clipped after they have been used.

        A factor of 1 clips nothing: Transformers 5.23 measures norms that way (`_get_grad_norm`).
        """
        if self._warned["clipping"] or torch.as_tensor(factor).eq(1).all():
            return
        self._warn_once(
            "clipping",
            f"{self._settings.name} updates during the backward pass, so clipping gradients after "
            "it has no effect; build with max_grad_norm and clipping='exact', 'previous_norm' or "
            "'per_parameter', and turn off the trainer's own clipping",
        )

    def warn_cleared_gradients(self, arrived: int) -> None:
        """Warn that accumulated gradients were cleared although nothing has called `step()`."""
        self._warn_once(
            "cleared",
            f"gradients of {arrived} of {self._settings.accumulation} micro-batches were cleared "
            f"before {self._settings.name} used them; if a step was meant to end there, call "
            "optimizer.step(), or let the trainer create the optimizer (hub.trainers)",
        )

    def failed(self, slot: Slot, error: Exception) -> HubError:
        """Return the error for an update that raised."""
        return HubError(
            f"the update of {slot.name} failed: {error}",
            where=self._settings.name,
            fix=f"{self._progress()}; optimizer.step() ends this step without the others",
        )

    def second_backward(self) -> HubError:
        """Return the error for a gradient that comes too late."""
        return UnsupportedError(
            f"a parameter that {self._settings.name} has already updated in this step got another "
            f"gradient: {self._progress()}",
            where="loss.backward()",
            fix=f"{_END_EACH}; to accumulate, build with gradient_accumulation_steps; layers used "
            "twice under activation checkpointing need use_reentrant=False; "
            f"{_OF_ANOTHER}",
        )

    def used_already(self) -> HubError:
        """Return the error for dropping gradients that have been used."""
        return UnsupportedError(
            f"zero_grad() is too late: {self._settings.name} has already used gradients of this "
            f"step: {self._progress()}",
            where="optimizer.zero_grad()",
            fix=f"{_END_EACH}; {_OF_ANOTHER}",
        )

    def _warn_once(self, kind: str, message: str) -> None:
        if not self._warned[kind]:
            self._warned[kind] = True
            warnings.warn(message, HubWarning, stacklevel=3)
