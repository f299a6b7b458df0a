"""What came out of a comparison: plain frozen data."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from hub.compare.settings import Contender, Settings

WARM_UP_STEPS = 5
"""Steps at the start that say nothing about speed; at most half of those there are."""


class Status(StrEnum):
    """How one training ended."""

    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    NOT_STARTED = "not started"


class Point(NamedTuple):
    """One training step."""

    step: int
    """Counted from 1."""
    loss: float
    """In nats a token, on this step's batch, before the update."""
    seconds: float
    """Forward, backward and update together."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One optimizer's part of a comparison. None is what was not measured."""

    contender: Contender
    status: Status
    error: str = ""
    """Why it failed, or where it was interrupted."""
    details: str = ""
    """The traceback, or the last lines that its process printed."""
    device: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Every argument of the optimizer, as resolved."""
    parameters: int | None = None
    """How many numbers the model trains."""
    curve: tuple[Point, ...] = ()
    eval_loss_before: float | None = None
    """On held-out text, in nats a token."""
    eval_loss_after: float | None = None
    tokens_per_second: float | None = None
    state_bytes: int | None = None
    """All tensors under "state" in the optimizer's state dict."""
    gradient_bytes: int | None = None
    """All gradients in memory at the same time, at the highest point of a backward pass."""
    peak_memory_bytes: int | None = None
    """Parameters, gradients, optimizer state and activations at the highest point of training."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All rows, in the order they were asked for, and what is needed to repeat them."""

    settings: Settings
    data: str
    """What the text was."""
    data_sha256: str
    versions: dict[str, str]
    """Of Python and of the distributions that took part."""
    rows: tuple[Row, ...]

    @property
    def loss_before(self) -> float | None:
        """The loss on held-out text before training: the same for all, who start the same."""
        losses = (row.eval_loss_before for row in self.rows)
        return next((loss for loss in losses if loss is not None), None)

    @property
    def interrupted(self) -> bool:
        """Whether it was ended before its time."""
        return any(row.status in (Status.INTERRUPTED, Status.NOT_STARTED) for row in self.rows)


def tokens_per_second(curve: tuple[Point, ...], tokens_per_step: int) -> float | None:
    """Return the median speed over the steps after the first few, or None without any step."""
    counted = curve[min(WARM_UP_STEPS, len(curve) // 2) :]
    return tokens_per_step / median(point.seconds for point in counted) if counted else None
