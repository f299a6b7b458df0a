"""The settings of an engine, and what it records about each parameter."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from hub.running.buckets.stepping import Stepping
from hub.running.stand_ins import StandIn

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter
    from torch.utils.hooks import RemovableHandle


@dataclass(frozen=True)
class Settings:
    """How to step an optimizer."""

    name: str
    """The optimizer's name, for messages."""
    accumulation: int = 1
    """Gradients of a parameter per update."""
    max_grad_norm: float | None = None
    clipping: str | None = None
    """As in `hub.arguments.InBackward`."""
    clip_grad_value: float | None = None
    stepping: Stepping = field(default_factory=Stepping)
    """How each update is run."""
    self_ending: bool = False
    """Whether steps also end without `step()`; see `hub.running.layerwise.self_ending`."""


@dataclass(slots=True)
class Slot:
    """One parameter: its place in the optimizer, and its state in this step."""

    parameter: Parameter
    itself: StandIn = field(init=False)
    """The parameter as its own stand-in, which has its group and its index there."""
    number: int = 0
    """The parameter's number among all, the same on every process."""
    handle: RemovableHandle | None = None
    gradients_seen: int = 0
    """The number of gradients since the last step."""
    waiting: weakref.ref[Tensor] | None = None
    """The sum of these gradients."""
    updated: bool = False
    has_zeros: bool = False
    """Whether the eager form would have a gradient here, if only of zeros."""
    norm: Tensor | None = None
    """The gradient's norm before clipping, or as measured for this step."""
    placeholder: Any = None
    """The `ReleasedGradient` that was in the place of the gradient after the last update."""

    @property
    def name(self) -> str:
        """The parameter's name in the model, for messages."""
        names = self.itself.group.get("param_names")
        return str(names[self.itself.index]) if names else f"of shape {tuple(self.parameter.shape)}"

    def count(self, passes: int = 1) -> int:
        """Count a gradient; return how many earlier ones were cleared, which no longer count.

        autograd accumulates in place (torch 2.13, `accumulate_grad.h`), unless it records the sum.

        Args:
            passes: The number of backward passes whose sum the gradient is.
        """
        gradient = self.gradient
        is_new = self.waiting is not None and self.waiting() is not gradient
        cleared = self.gradients_seen if is_new and not torch.is_grad_enabled() else 0
        self.gradients_seen += passes - cleared
        self.waiting = weakref.ref(gradient)
        return cleared

    def end(self) -> None:
        """Reset what this step recorded."""
        self.gradients_seen, self.waiting, self.updated, self.norm = 0, None, False, None
        self.parameter.grad = None

    def clear(self, *, set_to_none: bool) -> None:
        """Drop the gradient, as `zero_grad` does, which leaves zeros or None in its place."""
        had = self.has_zeros or self.parameter.grad is not None
        self.has_zeros = had and not set_to_none
        self.gradients_seen, self.waiting, self.parameter.grad = 0, None, None

    @property
    def gradient(self) -> Tensor:
        """The gradient, set by autograd or by the user."""
        gradient = self.parameter.grad
        assert gradient is not None  # noqa: S101 - callers have checked
        return gradient
