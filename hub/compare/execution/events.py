"""The events that a process sends while it trains: plain data that pickles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hub.compare.result import Status


@dataclass(frozen=True)
class Started:
    """Model and optimizer exist."""

    parameters: int
    """How many numbers the model trains."""
    device: str
    """The device in words."""
    arguments: dict[str, Any]
    """Every argument of the optimizer, as resolved."""
    changed: tuple[str, ...]
    """Those that are not defaults."""
    findings: tuple[str, ...]
    """Of the optimizer's plan."""


@dataclass(frozen=True)
class Evaluated:
    """The held-out loss after so many steps."""

    step: int
    loss: float


@dataclass(frozen=True)
class Stepped:
    """One training step is done."""

    step: int
    """Counted from 1."""
    loss: float
    """Before the update."""
    seconds: float
    """Forward, backward and update together."""


@dataclass(frozen=True)
class Warned:
    """hub or the optimizer's package raised a warning."""

    message: str


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the training took: fields of `hub.compare.Outcome`."""

    state_bytes: int
    gradient_bytes: int
    peak_memory_bytes: int | None
    step_bytes: int
    host_ms: float | None
    device_ms: float | None
    bandwidth: float | None


@dataclass(frozen=True)
class Ended:
    """The last event of a training."""

    status: Status
    error: str = ""
    details: str = ""
    """The traceback."""
    diverged_at: int | None = None
    """The step whose loss, or after which the held-out loss, was not a finite number."""


Event = Started | Evaluated | Stepped | Warned | Measured | Ended
