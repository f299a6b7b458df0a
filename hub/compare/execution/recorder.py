"""Gather the events of one training into its outcome."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from hub.compare.execution.events import Ended, Evaluated, Measured, Started, Stepped, Warned
from hub.compare.result import Evaluation, Outcome, Point, Status

if TYPE_CHECKING:
    from hub.compare.execution.events import Event
    from hub.compare.result import Run


class Recorder:
    """What is known of one training so far. It can be made an outcome at any moment."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.curve: list[Point] = []
        self.ended: Ended | None = None
        self._seconds = 0.0
        self._evaluations: list[Evaluation] = []
        self._started: Started | None = None
        self._measured: Measured | None = None
        self._warnings: list[str] = []

    def apply(self, event: Event) -> None:
        """Record an event of the process."""
        match event:
            case Started():
                self._started = event
            case Evaluated(step, loss):
                self._evaluations.append(Evaluation(step, loss, self._seconds))
            case Stepped(step, loss, seconds):
                self.curve.append(Point(step, loss, seconds))
                self._seconds += seconds
            case Warned(message):
                self._warnings.append(message)
            case Measured():
                self._measured = event
            case Ended():
                self.ended = event

    def outcome(self) -> Outcome:
        """Return all that is known; without an end, the training was interrupted."""
        ended = self.ended or Ended(
            Status.INTERRUPTED, f"interrupted at step {len(self.curve)} of {self.run.steps}"
        )
        started = asdict(self._started) if self._started else {}
        measured = asdict(self._measured) if self._measured else {}
        return Outcome(
            run=self.run,
            **asdict(ended),
            **started,
            **measured,
            curve=tuple(self.curve),
            evaluations=tuple(self._evaluations),
            warnings=tuple(self._warnings),
        )
