"""What the engine is told, and what it keeps of each parameter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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
    counters: frozenset[str] = frozenset()
    """The keys of a group that one step of the optimizer changes."""
    ends_itself: bool = False
    """Whether clearing the gradients ends the step too. Nobody else may: Accelerate never calls
    `step()` of a LOMO optimizer (accelerate 1.15, `AcceleratedOptimizer.step`)."""


@dataclass(slots=True)
class Slot:
    """One parameter: its place in the optimizer, and what happened to it in this step."""

    parameter: Parameter
    group: dict[str, Any] = field(default_factory=dict)
    index: int = 0
    """Among the parameters of the group."""
    handle: RemovableHandle | None = None
    arrived: int = 0
    """Gradients since the last step."""
    updated: bool = False
    norm: Tensor | None = None
    """Of the gradient as it came, or as it was measured for this step."""

    @property
    def name(self) -> str:
        """Its name in the model, for messages."""
        names = self.group.get("param_names")
        return str(names[self.index]) if names else f"of shape {tuple(self.parameter.shape)}"
