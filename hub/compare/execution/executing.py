"""Train what a study asks for, several at a time, and remember what is done."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

from hub.compare.execution.process import Process
from hub.compare.result import Outcome, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hub.compare.execution.recorder import Recorder
    from hub.compare.execution.series import Series
    from hub.compare.execution.store import Store
    from hub.compare.result import Run
    from hub.compare.settings import Settings
    from hub.experiments.contender import Contender


@dataclass(frozen=True, kw_only=True)
class Watcher:
    """What is called while a study runs."""

    found: Callable[[Outcome], None]
    """With a training that an earlier run of the study has done."""
    progress: Callable[[Recorder], None]
    """After each event of a training."""


@dataclass
class Execution:
    """Runs the trainings of all series."""

    settings: Settings
    series: Sequence[Series]
    contenders: Mapping[str, Contender]
    store: Store
    versions: Mapping[str, dict[str, str]]
    """By contender."""
    watcher: Watcher
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    """By the identity of a run, which its series holds."""
    _owners: dict[int, Series] = field(default_factory=dict)
    _waiting: deque[Run] = field(default_factory=deque)
    _active: list[Process] = field(default_factory=list)

    def run(self) -> None:
        """Train until all is done, or until KeyboardInterrupt, which keeps what is done.

        Raises:
            HubError: An outcome cannot be stored.
            KeyboardInterrupt: After all processes were ended.
        """
        try:
            for series in self.series:
                self._take(series)
            while self._waiting or self._active:
                self._launch()
                self._listen()
        finally:
            for process in self._active:
                process.stop()
                self.outcomes.setdefault(id(process.recorder.run), process.recorder.outcome())

    def results(self) -> tuple[Outcome, ...]:
        """Return the outcomes in the order of contenders, whatever order they ended in."""
        return tuple(
            self.outcomes.get(id(run)) or Outcome(run=run, status=Status.NOT_STARTED)
            for series in self.series
            for run in series.runs
        )

    def _take(self, series: Series) -> None:
        """Take on the trainings of a series that can start; what is stored is done already."""
        while new := series.next():
            for run in new:
                self._owners[id(run)] = series
                stored = self.store.load(self._key(run))
                if stored is None:
                    self._waiting.append(run)
                else:
                    self.watcher.found(stored)
                    self.outcomes[id(run)] = stored
                    series.record(stored)

    def _launch(self) -> None:
        while self._waiting and len(self._active) < self.settings.jobs:
            runs = self._next_runs()
            jobs = [(self.contenders[run.contender], run) for run in runs]
            self._active.append(Process(self.settings, jobs))

    def _next_runs(self) -> list[Run]:
        """Take what waits longest, and where it is quick, all others like it."""
        first = self._waiting.popleft()
        if not self._owners[id(first)].quick:
            return [first]
        alike = [
            run
            for run in self._waiting
            if run.contender == first.contender and self._owners[id(run)].quick
        ]
        taken = {id(run) for run in alike}
        self._waiting = deque(run for run in self._waiting if id(run) not in taken)
        return [first, *alike]

    def _listen(self) -> None:
        ready = wait([process.receiver for process in self._active])
        for process in [one for one in self._active if one.receiver in ready]:
            for outcome in process.receive():
                self.watcher.progress(process.recorder)
                if outcome is not None:
                    self._record(process.recorder.run, outcome)
            if process.over or process.gone:
                self._active.remove(process)
                process.stop()
                self._waiting.extendleft(reversed(process.left))

    def _record(self, run: Run, outcome: Outcome) -> None:
        self.outcomes[id(run)] = outcome
        self.store.save(self._key(run), outcome)
        series = self._owners[id(run)]
        series.record(outcome)
        self._take(series)

    def _key(self, run: Run) -> str:
        series = self._owners[id(run)]
        contender = self.contenders[run.contender]
        return self.store.key(run, contender, series.task, self.versions[run.contender])
