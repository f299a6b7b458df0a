"""Gather the events of one training into its row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.compare.events import Evaluated, Failed, Finished, Measured, Started, Stepped, Warned
from hub.compare.result import Point, Row, Status, tokens_per_second

if TYPE_CHECKING:
    from hub.compare.events import Event
    from hub.compare.settings import Contender, Settings


class Recorder:
    """What is known of one training so far. It can be made a row at any moment."""

    def __init__(self, settings: Settings, contender: Contender) -> None:
        self.contender = contender
        self.steps = settings.steps
        self.curve: list[Point] = []
        self.error = ""
        self.ended = False
        self._tokens_per_step = settings.batch_size * settings.sequence_length
        self._launched = False
        self._details = ""
        self._started: Started | None = None
        self._evaluated: dict[str, float] = {}
        self._measured: Measured | None = None
        self._warnings: list[str] = []

    def launch(self) -> None:
        """Note that the process is about to start."""
        self._launched = True

    def fail(self, error: str, details: str) -> None:
        """Note that there will be no result."""
        self.error, self._details, self.ended = error, details, True

    def apply(self, event: Event) -> None:
        """Record an event of the process."""
        match event:
            case Started():
                self._started = event
            case Evaluated(moment, loss):
                self._evaluated[moment] = loss
            case Stepped(step, loss, seconds):
                self.curve.append(Point(step, loss, seconds))
            case Warned(message):
                self._warnings.append(message)
            case Measured():
                self._measured = event
            case Failed(error, details):
                self.fail(error, details)
            case Finished():
                self.ended = True

    def speed(self, last: int | None = None) -> float | None:
        """Return the tokens per second, over all steps or only the last few."""
        curve = self.curve[-last:] if last else self.curve
        return tokens_per_second(tuple(curve), self._tokens_per_step)

    def status(self) -> Status:
        """Return how it ended, if this is the end."""
        if not self._launched:
            return Status.NOT_STARTED
        if not self.ended:
            return Status.INTERRUPTED
        return Status.FAILED if self.error else Status.DONE

    def row(self) -> Row:
        """Return all that is known."""
        status = self.status()
        interruption = f"interrupted at step {len(self.curve)} of {self.steps}"
        return Row(
            contender=self.contender,
            status=status,
            error=interruption if status is Status.INTERRUPTED else self.error,
            details=self._details,
            device=self._started.device if self._started else "",
            arguments=self._started.arguments if self._started else {},
            parameters=self._started.parameters if self._started else None,
            curve=tuple(self.curve),
            eval_loss_before=self._evaluated.get("before"),
            eval_loss_after=self._evaluated.get("after"),
            tokens_per_second=self.speed(),
            state_bytes=self._measured.state if self._measured else None,
            gradient_bytes=self._measured.gradients if self._measured else None,
            peak_memory_bytes=self._measured.peak_memory if self._measured else None,
            warnings=tuple(self._warnings),
        )
