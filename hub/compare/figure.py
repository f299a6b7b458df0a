"""Draw the losses of a comparison."""

from __future__ import annotations

import io
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from hub.experiments import extra

if TYPE_CHECKING:
    from hub.compare.result import Comparison, Row

SMOOTHING = 0.1
"""A drawn loss is the mean of this part of the steps, up to its own: batches differ."""
STYLES = ("-", "--", ":", "-.")
COLORS = 10
"""How many colors matplotlib's cycle has."""


def png(comparison: Comparison) -> bytes:
    """Draw the training losses over steps and over time.

    Raises:
        HubError: matplotlib is missing.
    """
    # The object interface only: pyplot keeps global state and looks for a display.
    canvas_of = extra.load("matplotlib.backends.backend_agg").FigureCanvasAgg
    drawing = extra.load("matplotlib.figure").Figure(figsize=(11, 4.5), layout="constrained")
    over_steps, over_time = drawing.subplots(1, 2, sharey=True)
    drawn = [row for row in comparison.rows if row.curve]
    for index, row in enumerate(drawn):
        _draw(row, over_steps, over_time, index)
    over_steps.set(xlabel="step", ylabel="training loss (nats a token)")
    over_time.set(xlabel="training time (s)")
    for axes in (over_steps, over_time):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    if drawn:
        over_steps.legend(fontsize="small")
    else:
        over_steps.set_title("no optimizer made a step")
    file = io.BytesIO()
    canvas_of(drawing).print_png(file)
    return file.getvalue()


def smoothed(losses: list[float]) -> list[float]:
    """Return the mean of each loss and those shortly before it."""
    width = max(1, int(len(losses) * SMOOTHING))
    windows = (losses[max(0, end - width) : end] for end in range(1, len(losses) + 1))
    return [sum(window) / len(window) for window in windows]


def _draw(row: Row, over_steps: Any, over_time: Any, index: int) -> None:
    losses = smoothed([point.loss for point in row.curve])
    look = {
        "color": f"C{index % COLORS}",
        "linestyle": STYLES[index // COLORS % len(STYLES)],
        "label": row.contender.label.replace("$", r"\$"),  # no formula
        "marker": "." if len(losses) == 1 else "",
    }
    over_steps.plot([point.step for point in row.curve], losses, **look)
    over_time.plot(list(accumulate(point.seconds for point in row.curve)), losses, **look)
