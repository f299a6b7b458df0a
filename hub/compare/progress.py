"""Show a study while it runs: bars with the time left on a terminal, lines elsewhere."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from hub.compare.result import Purpose

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.progress import Progress, TaskID

    from hub.compare.execution.recorder import Recorder
    from hub.compare.result import Outcome, Run

LINES = 5
"""How many lines a training gets without a terminal, besides the first step's, if it is the only
one of its contender; one of many gets a line at its end."""


@contextmanager
def shown(trainings: int, steps: int, console: Console) -> Iterator[Shown]:
    """Give what shows the events of a study.

    Args:
        trainings: How many there are at most.
        steps: Of all of them together.
        console: Shows it.
    """
    if console.is_terminal:
        with _progress(console) as bars:
            yield Bars(bars, trainings, steps)
    else:
        yield Lines(console, trainings)


class Shown:
    """What is called as trainings go on."""

    def __init__(self, trainings: int) -> None:
        self.trainings = trainings
        self.ended = 0

    def found(self, outcome: Outcome) -> None:
        """Count a training that an earlier run of the study has done."""
        self.ended += 1
        self.skip(outcome.run.steps)

    def event(self, recorder: Recorder) -> None:
        """Show how far a training is."""
        self.ended += recorder.ended is not None
        self.show(recorder)

    def skip(self, steps: int) -> None:
        """Show that steps need not be done."""
        raise NotImplementedError

    def show(self, recorder: Recorder) -> None:
        """Show an event of a training."""
        raise NotImplementedError


class Bars(Shown):
    """A bar for the study, and one for each training that runs."""

    def __init__(self, bars: Progress, trainings: int, steps: int) -> None:
        super().__init__(trainings)
        self._bars = bars
        self._done = 0
        self._study = bars.add_task("study", total=steps, news=self._count())
        self._tasks: dict[int, TaskID] = {}

    def skip(self, steps: int) -> None:
        """Advance the study's bar."""
        self._done += steps
        self._bars.update(self._study, completed=self._done, news=self._count())

    def show(self, recorder: Recorder) -> None:
        """Advance the bar of a training, and remove it at the end."""
        run, steps = recorder.run, len(recorder.curve)
        task = self._tasks.get(id(run))
        if task is None:
            task = self._tasks[id(run)] = self._bars.add_task(title(run), total=run.steps, news="")
        self._bars.update(task, completed=steps, news=_news(recorder))
        if recorder.ended:
            self._bars.remove_task(self._tasks.pop(id(run)))
            self.skip(run.steps)
        else:
            self._bars.update(self._study, completed=self._done + steps)

    def _count(self) -> str:
        return f"{self.ended} of {self.trainings} trainings"


class Lines(Shown):
    """A line now and then."""

    def __init__(self, console: Console, trainings: int) -> None:
        super().__init__(trainings)
        self._console = console
        self._said: dict[int, int] = {}

    def skip(self, steps: int) -> None:
        """Print nothing for what is done."""

    def show(self, recorder: Recorder) -> None:
        """Print a line if one is due."""
        run, step = recorder.run, len(recorder.curve)
        every = -(-run.steps // LINES)
        if recorder.ended:
            end = f"{recorder.ended.status.value}, {_news(recorder)}"
            self._print(f"[{self.ended}/{self.trainings}] {title(run)}: {end}")
        elif run.purpose is Purpose.TUNING or self._said.get(id(run)) == step:
            return
        elif step == 1 or (step and step % every == 0):
            self._said[id(run)] = step
            self._print(f"{title(run)}: step {step}/{run.steps}, {_news(recorder)}")

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, markup=False, highlight=False)


def title(run: Run) -> str:
    """Return what a training is called in a line of progress."""
    which = f"trial {run.trial}" if run.trial is not None else f"seed {run.seed}"
    return f"{run.contender}, {run.task}, {which}"


def _progress(console: Console) -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    label = Column(no_wrap=True, overflow="ellipsis", max_width=console.width // 3)
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=label),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[news]}", markup=False),
        console=console,
        expand=True,
    )


def _news(recorder: Recorder) -> str:
    if not recorder.curve:
        return "starting"
    return f"loss {recorder.curve[-1].loss:.4g}"
