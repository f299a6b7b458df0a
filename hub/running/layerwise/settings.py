"""The settings of an engine, and what it records about each parameter."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter
    from torch.utils.hooks import RemovableHandle


@dataclass(frozen=True)
class Settings:
    """How an optimizer is to be stepped."""

    name: str
    """Of the optimizer, for messages."""
    accumulation: int = 1
    """Gradients of a parameter per update."""
    max_grad_norm: float | None = None
    clipping: str | None = None
    """As `hub.arguments.InBackward` has it."""
    clip_grad_value: float | None = None
    step_counters: frozenset[str] = frozenset()
    """The keys of a group that one step of the optimizer changes."""
    self_ending: bool = False
    """Whether the step ends without `step()` too; see `hub.running.layerwise.self_ending`."""


@dataclass(slots=True)
class Slot:
    """One parameter: its place in the optimizer, and what happened to it in this step."""

    parameter: Parameter
    group: dict[str, Any] = field(default_factory=dict)
    index: int = 0
    """Among the parameters of the group."""
    handle: RemovableHandle | None = None
    gradients_seen: int = 0
    """Since the last step."""
    waiting: weakref.ref[Tensor] | None = None
    """Their sum."""
    updated: bool = False
    has_zeros: bool = False
    """Whether the eager form would have a gradient here, of zeros if no other has come."""
    norm: Tensor | None = None
    """Of the gradient as it came, or as it was measured for this step."""

    @property
    def name(self) -> str:
        """Its name in the model, for messages."""
        names = self.group.get("param_names")
        return str(names[self.index]) if names else f"of shape {tuple(self.parameter.shape)}"

    def count(self) -> int:
        """Count a gradient; return how many before it somebody has cleared, which count no more.

        autograd adds in place (torch 2.13, `accumulate_grad.h`), unless it records the sum.
        """
        gradient = self.gradient
        is_new = self.waiting is not None and self.waiting() is not gradient
        cleared = self.gradients_seen if is_new and not torch.is_grad_enabled() else 0
        self.gradients_seen += 1 - cleared
        self.waiting = weakref.ref(gradient)
        return cleared

    def end(self) -> None:
        """Forget this step."""
        self.gradients_seen, self.waiting, self.updated, self.norm = 0, None, False, None
        self.parameter.grad = None

    def clear(self, *, set_to_none: bool) -> None:
        """Drop the gradient, as `zero_grad` does, which keeps zeros in its place or nothing."""
        had = self.has_zeros or self.parameter.grad is not None
        self.has_zeros = had and not set_to_none
        self.gradients_seen, self.waiting, self.parameter.grad = 0, None, None

    @property
    def gradient(self) -> Tensor:
        """The gradient that autograd, or the user, has put there."""
        gradient = self.parameter.grad
        assert gradient is not None  # noqa: S101 - called where there is one
        return gradient
