"""The figures of a comparison: as cells, and as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.compare import formatting
from hub.compare.result import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from hub.compare.result import Comparison, Row

HEADINGS = ("optimizer", "loss", "tokens/s", "state", "gradients", "peak memory")
SHORT = {"gradients": "grads", "peak memory": "peak"}
"""Headings for a terminal, where a name of 30 characters leaves 50 for the figures."""


def cells(row: Row) -> tuple[str, ...]:
    """Return the texts under `HEADINGS`; how a training ended stands in for the loss it lacks."""
    done = row.status is Status.DONE
    return (
        row.contender.label,
        formatting.loss(row.eval_loss_after) if done else row.status.value,
        formatting.speed(row.tokens_per_second),
        formatting.size(row.state_bytes),
        formatting.size(row.gradient_bytes),
        formatting.size(row.peak_memory_bytes),
    )


def show(comparison: Comparison, console: Console, say: Callable[[str], str] = str) -> None:
    """Print the table, and under it each error and warning in full, as `say` words them."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False, pad_edge=False)
    table.add_column(HEADINGS[0], overflow="fold")
    for heading in HEADINGS[1:]:  # figures keep their width; a long label takes more lines
        table.add_column(SHORT.get(heading, heading), justify="right", no_wrap=True)
    for row in comparison.rows:
        table.add_row(*cells(row))
    console.print(
        f"loss on held-out text, {formatting.loss(comparison.loss_before)} before training"
    )
    console.print(table)
    for row in comparison.rows:
        errors = [row.error] if row.error else []
        for text in (*errors, *(f"warning: {warning}" for warning in row.warnings)):
            console.print(f"{row.contender.label}: {say(text)}")
