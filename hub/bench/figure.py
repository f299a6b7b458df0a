"""Draw a measurement: how long steps take, and what of the bandwidth they reach."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hub.bench.table import title
from hub.experiments import extra

if TYPE_CHECKING:
    from hub.bench.result import Report

HEIGHT = 0.22
"""Inches of a row."""


def figure(report: Report) -> Any:
    """Return a matplotlib figure with a bar for each optimizer, the fastest first.

    Raises:
        HubError: matplotlib is missing.
    """
    # The object interface only: pyplot keeps global state and looks for a display.
    made = extra.load("matplotlib.figure").Figure
    rows = sorted((row for row in report.rows if row.ratio), key=lambda row: row.ratio or 0)
    drawn = made(figsize=(9, 1.6 + HEIGHT * len(rows)), layout="constrained")
    times, reached = drawn.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    places = range(len(rows))
    times.barh(places, [row.ratio for row in rows], color="C0", label="mean step")
    refreshed = [
        (row.refresh_ms / row.fused_ms, place)
        for place, row in enumerate(rows)
        if row.refresh_ms and row.fused_ms
    ]
    if refreshed:
        look = {"markersize": 9, "label": "step that refreshes projections"}
        times.plot(*zip(*refreshed, strict=True), "C1|", **look)
    times.set(xscale="log", xlabel="time, torch's fused AdamW = 1")
    times.set_yticks(places, [row.label.replace("$", r"\$") for row in rows], fontsize="small")
    times.invert_yaxis()
    times.axvline(1, color="gray", linewidth=0.8)
    times.legend(fontsize="small", loc="upper right")
    reached.barh(places, [100 * (row.reached or 0) for row in rows], color="C2")
    reached.set(xlabel="bandwidth reached (%)")
    for axes in (times, reached):
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    drawn.suptitle(title(report), fontsize="medium")
    return drawn
