"""The figures of a comparison: as cells, and as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.compare import wording

if TYPE_CHECKING:
    from rich.console import Console

    from hub.compare.result import Comparison, Row

HEADINGS = (
    "optimizer",
    "held-out loss",
    "tokens/s",
    "state",
    "gradients",
    "peak memory",
    "result",
)


def cells(row: Row) -> tuple[str, ...]:
    """Return the texts under `HEADINGS`."""
    return (
        row.contender.label,
        wording.change(row.eval_loss_before, row.eval_loss_after),
        wording.speed(row.tokens_per_second),
        wording.size(row.state_bytes),
        wording.size(row.gradient_bytes),
        wording.size(row.peak_memory_bytes),
        row.status.value,
    )


def show(comparison: Comparison, console: Console) -> None:
    """Print the table, and under it each error and warning in full."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(HEADINGS[0], overflow="fold")
    for heading in HEADINGS[1:]:  # figures keep their width; a long label takes more lines
        narrow = heading.replace("gradients", "grads").replace("peak memory", "peak")
        table.add_column(narrow, justify="right", no_wrap=True)
    for row in comparison.rows:
        table.add_row(*cells(row))
    console.print(table)
    for row in comparison.rows:
        errors = [row.error] if row.error else []
        for text in (*errors, *(f"warning: {warning}" for warning in row.warnings)):
            console.print(f"{row.contender.label}: {text}")
