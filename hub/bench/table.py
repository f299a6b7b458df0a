"""The figures of a measurement: as cells, and as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from hub.terminal import literal
from hub.text import size_text

if TYPE_CHECKING:
    from rich.console import Console

    from hub.bench.result import Report, Row

UNKNOWN = "–"
MEANINGS = {
    "ms": "a step, the median",
    "host": "until it returns",
    "device": "between its first and last kernel",
    "refresh": "a step that computes projections anew",
    "×fused": "the mean step over that of torch's fused AdamW",
    "moved": "what a step reads and writes",
    "reached": "the share of the memory's bandwidth",
    "peak": "memory with parameters, gradients and state",
    "first": "from the build to the end of the first step",
}
HEADINGS = tuple(MEANINGS)


def show(report: Report, console: Console) -> None:
    """Print a table, and under it why optimizers were not measured."""
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False, pad_edge=False)
    table.add_column("optimizer", overflow="fold")
    used = headings(report)
    for heading in used:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report.rows:
        table.add_row(literal(row.label), *(cells(row)[heading] for heading in used))
    console.print(title(report))
    console.print(table)
    console.print("; ".join(f"{heading}: {MEANINGS[heading]}" for heading in used))
    for row in report.rows:
        if row.error:
            console.print(f"{row.label}: {row.error}")


def title(report: Report) -> str:
    """Say what was stepped, and where."""
    done = [row for row in report.rows if not row.error]
    if not done:
        return f"nothing was measured on {report.device}"
    speed = sorted(row.bandwidth or 0 for row in done)[len(done) // 2]
    return (
        f"{done[0].parameters:,} parameters in {done[0].tensors} tensors, "
        f"{report.settings['precision']}; {report.device}; {speed / 1e9:.0f} GB/s"
    )


def headings(report: Report) -> list[str]:
    """Return the headings of what was measured; on a CPU that is not the device."""
    on_device = any(row.device_ms is not None for row in report.rows)
    refreshed = any(row.refresh_ms is not None for row in report.rows)
    left_out = {
        *(() if on_device else ("host", "device")),
        *(() if refreshed else ("refresh",)),
        *(("moved",) if on_device else ()),  # for want of columns
    }
    return [heading for heading in HEADINGS if heading not in left_out]


def cells(row: Row) -> dict[str, str]:
    """Return the texts under `HEADINGS`."""
    if row.error:
        return {**dict.fromkeys(HEADINGS, UNKNOWN), "ms": "failed"}
    first = None if row.build_seconds is None else row.build_seconds * 1000 + (row.first_ms or 0)
    return {
        "ms": _number(row.ms),
        "host": _number(row.host_ms),
        "device": _number(row.device_ms),
        "refresh": _number(row.refresh_ms),
        "×fused": _number(row.ratio),
        "moved": UNKNOWN if row.step_bytes is None else size_text(row.step_bytes),
        "reached": UNKNOWN if row.reached is None else f"{row.reached:.0%}",
        "peak": UNKNOWN if row.peak_bytes is None else size_text(row.peak_bytes),
        "first": UNKNOWN if first is None else f"{_number(first / 1000)} s",
    }


def _number(value: float | None) -> str:
    """Write three digits, in at most five characters."""
    if value is None:
        return UNKNOWN
    decimals = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0  # noqa: PLR2004
    return f"{value:.{decimals}f}"
