"""The tables of the page: figures by contender, and p values by pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.compare import formatting, statistics
from hub.compare.claims import EACH, pairs
from hub.compare.report import markup
from hub.compare.report.markup import text
from hub.compare.report.rows import columns, rows

if TYPE_CHECKING:
    from hub.compare.claims import Claim
    from hub.compare.report.looks import Look
    from hub.compare.report.rows import Column, Row
    from hub.compare.result import Results, TaskRecord

OPEN_PAIRS = 28
"""Up to so many pairs, their table is not folded."""


def figures(results: Results, task: TaskRecord, look: dict[str, Look]) -> str:
    """Return the table of a task: a row for each contender, in the study's order.

    Raises:
        HubError: SciPy is missing.
    """
    shown = rows(results, task)
    kept = columns(shown)
    counts = {row.loss.count for row in shown if row.loss}
    several = max(counts, default=1) > 1
    caption = f"Mean held-out loss in {task.unit}" + (
        " with its 95 % interval over the seeds; the other figures are medians over the seeds."
        if several
        else ". One seed: small differences mean nothing."
    )
    body = [
        markup.row(_heading(row, look[row.contender]), [_cell(row, one) for one in kept])
        for row in shown
    ]
    return markup.table(caption, ("optimizer", *(one.heading for one in kept)), body, "cards")


def matrix(results: Results, task: TaskRecord, look: dict[str, Look]) -> str:
    """Return the p value of each pair, folded; nothing where each has a sentence.

    Raises:
        HubError: SciPy is missing.
    """
    compared = {frozenset((one.winner, one.loser)): one for one in pairs(results, task)}
    if len(compared) <= EACH:  # each has a sentence
        return ""
    names = [name for name in results.contenders if any(name in pair for pair in compared)]
    numbers = {name: str(number) for number, name in enumerate(names, start=1)}
    body = [
        markup.row(
            look[name].named(f"{numbers[name]} {name}"),
            [_verdict(name, compared.get(frozenset((name, other)))) for other in names],
        )
        for name in names
    ]
    caption = (
        f"Is the optimizer of a row better than that of a column? p values, corrected for "
        f"{len(compared)} pairs; below {statistics.LEVEL} two are told apart."
    )
    return markup.folded(
        f"p values of all {len(compared)} pairs",
        markup.table(caption, ("optimizer", *numbers.values()), body, "matrix"),
        opened=len(compared) <= OPEN_PAIRS,
    )


def _heading(row: Row, look: Look) -> str:
    """Return who it is, and how each seed ended that is not done."""
    return look.named(row.contender) + "".join(f"<small>{text(one)}</small>" for one in row.ended)


def _cell(row: Row, column: Column) -> str:
    shown, note = column.text(row), ""
    if column.heading == "held-out loss" and row.loss and row.ended:
        note = f"<small>{row.loss.count} of {len(row.outcomes)} seeds</small>"
    unknown = ' class="unknown"' if shown == formatting.UNKNOWN else ""
    return f'<td data-label="{text(column.heading)}"{unknown}><span>{text(shown)}{note}</span></td>'


def _verdict(name: str, claim: Claim | None) -> str:
    if claim is None:
        return "<td></td>"
    written = text(formatting.p(claim.p, statistics.LEVEL).removeprefix("p = ").removeprefix("p "))
    if not claim.told_apart:
        return f"<td>{written}</td>"
    word = "better" if claim.winner == name else "worse"
    return f'<td class="{word}">{word}, {written}</td>'
