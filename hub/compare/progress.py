"""Show trainings while they run: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from hub.compare import formatting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console

    from hub.compare.recorder import Recorder

LINES = 5
"""How many lines a training gets without a terminal, besides the first step's."""
RECENT = 20
"""How many steps the shown speed is the median of."""


@contextmanager
def shown(recorders: Sequence[Recorder], console: Console) -> Iterator[Callable[[Recorder], None]]:
    """Give the function to call after each event of a training."""
    if console.is_terminal:
        with _bars(recorders, console) as update:
            yield update
    else:
        yield _lines(console)


@contextmanager
def _bars(recorders: Sequence[Recorder], console: Console) -> Iterator[Callable[[Recorder], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Column

    label = Column(no_wrap=True, overflow="ellipsis", max_width=console.width // 3)
    columns = (
        TextColumn("{task.description}", markup=False, table_column=label),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[news]}", markup=False),
    )
    with Progress(*columns, console=console) as bars:
        tasks = {
            recorder: bars.add_task(recorder.contender.label, total=recorder.steps, news="")
            for recorder in recorders
        }

        def update(recorder: Recorder) -> None:
            news = "failed" if recorder.error else _news(recorder)
            bars.update(tasks[recorder], completed=len(recorder.curve), news=news)

        yield update


def _lines(console: Console) -> Callable[[Recorder], None]:
    said: set[tuple[str, int]] = set()

    def update(recorder: Recorder) -> None:
        label, step = recorder.contender.label, len(recorder.curve)
        every = -(-recorder.steps // LINES)
        due = step in (1, recorder.steps) or (step and step % every == 0)
        if recorder.error:
            text = f"{label}: failed"
        elif due and (label, step) not in said:
            said.add((label, step))
            text = f"{label}: step {step}/{recorder.steps}, {_news(recorder)}"
        else:
            return
        console.print(text, soft_wrap=True)

    return update


def _news(recorder: Recorder) -> str:
    if not recorder.curve:
        return "starting"
    loss = formatting.loss(recorder.curve[-1].loss)
    return f"loss {loss}, {formatting.speed(recorder.speed(RECENT))} tokens/s"
