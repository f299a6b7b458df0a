"""The events that a training process sends while it runs: plain data that pickles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Started:
    """Model and optimizer exist."""

    parameters: int
    """How many numbers the model trains."""
    device: str
    """The device in words."""
    arguments: dict[str, Any]
    """Every argument of the optimizer, as resolved."""


@dataclass(frozen=True)
class Evaluated:
    """The held-out loss, in nats a token."""

    moment: Literal["before", "after"]
    loss: float


@dataclass(frozen=True)
class Stepped:
    """One training step is done."""

    step: int
    """Counted from 1."""
    loss: float
    """In nats a token, before the update."""
    seconds: float
    """Forward, backward and update together."""


@dataclass(frozen=True)
class Warned:
    """hub or the optimizer's package raised a warning."""

    message: str


@dataclass(frozen=True)
class Measured:
    """What the training took, in bytes."""

    state: int
    gradients: int
    """At the highest point of one backward pass."""
    peak_memory: int | None
    """None if the system does not report it."""


@dataclass(frozen=True)
class Finished:
    """The last event of a training that went well."""


@dataclass(frozen=True)
class Failed:
    """The last event of a training that raised."""

    error: str
    details: str
    """The traceback."""


Event = Started | Evaluated | Stepped | Warned | Measured | Finished | Failed
