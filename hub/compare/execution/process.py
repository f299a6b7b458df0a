"""A process that trains one run or several, and what it has sent so far."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hub.compare import tasks
from hub.compare.execution import worker
from hub.compare.execution.events import Ended
from hub.compare.execution.recorder import Recorder
from hub.compare.result import Status
from hub.experiments import processes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hub.compare.result import Outcome, Run
    from hub.compare.settings import Settings
    from hub.experiments.contender import Contender

LOG_TAIL = 4000
"""How many of the last printed characters explain a crash."""


class Process:
    """Trains in a fresh process.

    It has its own peak memory, and a crash in it is a result of one training, not the end.
    """

    def __init__(self, settings: Settings, jobs: Sequence[tuple[Contender, Run]]) -> None:
        self._waiting = [run for _, run in jobs]
        self.gone = False
        """Whether it ended before its work was done."""
        self._folder = tempfile.TemporaryDirectory(prefix="hub-compare-")
        self._log = Path(self._folder.name) / "output.txt"
        names = tasks.expanded(settings.tasks)
        context = processes.context(["hub.compare.execution.preloaded", *tasks.preloaded(names)])
        self.receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(
            target=worker.main, args=(settings, jobs, sender, self._log), daemon=True
        )
        self.recorder = Recorder(self._waiting.pop(0))
        with processes.interrupts_held_back():
            self._process.start()
        sender.close()  # or the end of the process would not be the end of the stream

    @property
    def over(self) -> bool:
        """Whether nothing more is to come."""
        return self.recorder.ended is not None and not self._waiting

    @property
    def left(self) -> list[Run]:
        """The runs that it has not begun."""
        return self._waiting

    def receive(self) -> Iterator[Outcome | None]:
        """Take in what has arrived: an outcome when a run has ended, None after another event."""
        try:
            while self.receiver.poll():
                self.recorder.apply(self.receiver.recv())
                yield self.recorder.outcome() if self.recorder.ended else None
                if self.recorder.ended and self._waiting:
                    self.recorder = Recorder(self._waiting.pop(0))
                elif self.recorder.ended:
                    # What the process started may outlive it with the stream open.
                    return
        except (EOFError, OSError):
            self.gone = True
            yield self._crash()

    def stop(self) -> None:
        """End the process, if it has not ended by itself, and remove what it printed."""
        if self.over:
            self._process.join(processes.PATIENCE)
        processes.stop(self._process)
        self.receiver.close()
        self._folder.cleanup()

    def _crash(self) -> Outcome:
        """Record that the process is gone in the middle of a run; the others are left over."""
        self._process.join(processes.PATIENCE)
        reason = processes.exit_reason(self._process.exitcode)
        self.recorder.apply(Ended(Status.FAILED, reason, self._tail()))
        return self.recorder.outcome()

    def _tail(self) -> str:
        try:
            return self._log.read_text(errors="replace")[-LOG_TAIL:].strip()
        except FileNotFoundError:
            return ""
