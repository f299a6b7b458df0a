"""What a plugin declares of a learning-rate schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import BaseModel
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


@dataclass(frozen=True, kw_only=True)
class SchedulerSpec:
    """Describes one learning-rate schedule: its name, arguments and properties."""

    name: str
    """The name that users write, and the name of its entry point."""
    summary: str
    """A one-line summary, without a period."""
    arguments: type[BaseModel]
    """A pydantic model of its arguments, besides the numbers of warm-up and training steps."""
    build: Callable[[Optimizer, int, int | None, Any], LRScheduler]
    """Called with optimizer, num_warmup_steps, num_training_steps and the validated arguments."""
    needs_training_steps: bool = False
    """Whether `num_training_steps` is required."""
    uses_warmup_steps: bool = True
    """Whether `num_warmup_steps` has an effect."""
    decays: bool = True
    """Whether the learning rate ends below its peak."""
    needs_metric: bool = False
    """Whether `step` takes a metric, such as the loss of an evaluation."""
    example_arguments: Mapping[str, Any] = field(default_factory=dict)
    """Arguments for a run of twenty steps, for `hub check`, including all required ones."""
    example_optimizer: tuple[str, Mapping[str, Any]] = ("sgd", {})
    """An optimizer that the schedule works with, and its arguments, for `hub check`."""
    known_failures: Mapping[str, str] = field(default_factory=dict)
    """The checks of `hub check` that fail for now, and why."""
