"""The results of a study in a terminal: figures, claims, and what went wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size

from hub.compare import formatting
from hub.compare.claims import Lead, claims, pairs, shared
from hub.compare.report.rows import columns, rows
from hub.compare.result import Status
from hub.compare.statistics import LEVEL
from hub.terminal import literal
from hub.text import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console

    from hub.compare.claims import Claim
    from hub.compare.report.rows import Column, Row
    from hub.compare.result import Results, TaskRecord

GAP = "  "
P_WIDTH, LEAST_LABEL = 9, 12
"""Of a p value and of a label in a table of pairs."""
EXTRA = (
    "tokens to",
    "bandw.",
    "device ms",
    "grads",
    "time to",
    "host ms",
    "peak",
    "step ms",
    "to target",
)
"""Columns that go first where a terminal is narrow; the report has them all."""


def show(results: Results, console: Console, say: Callable[[str], str] = str) -> None:
    """Print a table and the claims of each task, and under them each error and warning in full.

    Args:
        results: Of a study.
        console: Where to.
        say: Words errors and warnings.

    Raises:
        HubError: SciPy is missing.
    """
    for task in results.tasks:
        console.print(literal(f"{task.name}: {_what(task)}", "bold"))
        for line, style in _table(rows(results, task), console.width):
            console.print(literal(line, style), soft_wrap=True)
        said = claims(results, task)
        for claim in said:
            console.print(literal(claim.sentence()))
        if any(isinstance(claim, Lead) for claim in said):  # not every pair has a sentence
            for line in _matrix(results, task, console.width):
                console.print(literal(line), soft_wrap=True)
        console.print()
    for text in _messages(results, say):
        console.print(literal(text))


def _what(task: TaskRecord) -> str:
    target = "" if task.target is None else f", target {formatting.loss(task.target)}"
    return f"held-out loss in {task.unit} after {task.steps} steps{target}"


def _table(shown: Sequence[Row], width: int) -> Iterator[tuple[str, str]]:
    """Return lines and their styles. Labels too wide for a column have lines to themselves."""
    labels = [clean(row.contender).replace("\n", " ") for row in shown]
    room = max(map(cell_len, labels), default=0)
    fitting = _fitting(shown, width)
    if room + len(GAP) + _width(shown, fitting) > width:
        room = 0
    widths = [_column_width(shown, column) for column in fitting]
    heading = (f"{one.short:>{wide}}" for one, wide in zip(fitting, widths, strict=True))
    yield GAP.join([" " * room, *heading]), "dim"
    for label, row in zip(labels, shown, strict=True):
        cells = zip(fitting, widths, strict=True)
        figures = GAP.join(f"{_cell(one, row):>{wide}}" for one, wide in cells)
        if room:
            yield f"{label}{' ' * (room - cell_len(label))}{GAP}{figures}", ""
        else:
            yield label, ""
            yield f"{GAP}{figures}", ""


def _fitting(shown: Sequence[Row], width: int) -> list[Column]:
    """Leave out columns until a line holds the others."""
    kept = list(columns(shown))
    for name in EXTRA:
        if len(GAP) + _width(shown, kept) <= width:
            break
        kept = [one for one in kept if one.short != name]
    return kept


def _width(shown: Sequence[Row], kept: Sequence[Column]) -> int:
    return sum(_column_width(shown, one) for one in kept) + len(GAP) * (len(kept) - 1)


def _column_width(shown: Sequence[Row], column: Column) -> int:
    return max(len(column.short), *(len(_cell(column, row)) for row in shown))


def _cell(column: Column, row: Row) -> str:
    """Return a figure; how a training ended stands in for the loss that it lacks."""
    if column.short != "loss":
        return column.text(row)
    if row.loss is not None:
        part = f" ({row.loss.count}/{len(row.outcomes)})" if row.ended else ""
        return f"{column.text(row)}{part}"
    outcomes = row.outcomes or row.trials
    if all(one.status is Status.DIVERGED for one in outcomes):
        steps = sorted({one.diverged_at or 0 for one in outcomes})
        return f"diverged at {steps[0]}{'+' if steps[1:] else ''}" if steps else formatting.UNKNOWN
    return next((one.status.value for one in row.outcomes), formatting.UNKNOWN)


def _matrix(results: Results, task: TaskRecord, width: int) -> Iterator[str]:
    """Return the p values of all pairs as lines; none where they are too wide."""
    names = [*shared(results, task.name)]
    by_pair = {(one.winner, one.loser): one for one in pairs(results, task)}
    cells = [[_p(by_pair, name, other) for other in names] for name in names]
    room = width - P_WIDTH * len(names)
    if room < LEAST_LABEL:
        return
    yield "p values, * where the optimizer of the line is better than that of the column"
    labels = [f"{number} {clean(name)}" for number, name in enumerate(names, start=1)]
    longest = min(room, max(map(cell_len, labels)))
    yield " " * longest + "".join(f"{n:>{P_WIDTH - 1}} " for n in range(1, len(names) + 1))
    for label, line in zip(labels, cells, strict=True):
        fitted = set_cell_size(label, longest)
        yield fitted + "".join(f"{cell:>{P_WIDTH}}" for cell in line)


def _p(by_pair: dict[tuple[str, str], Claim], name: str, other: str) -> str:
    claim = by_pair.get((name, other)) or by_pair.get((other, name))
    if claim is None:
        return ""
    text = formatting.p(claim.p, LEVEL).removeprefix("p ").removeprefix("= ").replace("< ", "<")
    return f"{text}{'*' if claim.told_apart and claim.winner == name else ' '}"


def _messages(results: Results, say: Callable[[str], str]) -> Iterator[str]:
    """Return each error and warning once, with all trainings that it is of counted."""
    found: dict[tuple[str, str], int] = {}
    for one in results.outcomes:
        # That trials diverge is what they are for.
        tried = one.run.trial is not None and one.status is Status.DIVERGED
        errors = [one.error] if one.error and not tried else []
        for text in (*errors, *(f"warning: {warning}" for warning in one.warnings)):
            key = (one.run.contender, text)
            found[key] = found.get(key, 0) + 1
    for (contender, text), count in found.items():
        times = f" ({count} trainings)" if count > 1 else ""
        yield f"{contender}: {say(text)}{times}"
