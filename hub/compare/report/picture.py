"""A picture of a report: drawn once, written into the page and as a file."""

from __future__ import annotations

import io
import math
import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hub.compare.report.looks import INK, LINE, MUTED, PAPER, with_variables
from hub.experiments import extra
from hub.text import clean, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hub.compare.report.looks import Look

INCHES = (5.6, 3.5)
"""Small, so that text keeps its size on a phone; two fit side by side on a desk."""
DPI = 160
LEGEND_LINE = 0.19
"""Inches of a contender's line in a legend."""
LONGEST = 60
"""Characters of a label in a picture."""
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "font.size": 10.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "grid.color": LINE,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": PAPER,
    "legend.frameon": False,
    "lines.markersize": 5,
    "lines.solid_capstyle": "round",
}
NOT_FOR_PAGES = re.compile(
    r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>"
    r'| xmlns(?::xlink)?="[^"]*"| (?:width|height)="[\d.]+pt"',
    re.DOTALL,
)


@dataclass(frozen=True)
class Picture:
    """A drawing, and what says what to see in it."""

    name: str
    """Of its file, without the ending."""
    title: str
    caption: str
    drawn: Any
    """matplotlib's figure, without a legend: the page has one for all pictures."""
    looks: dict[str, Look]
    """The contenders in it."""

    def svg(self) -> str:
        """Return it for a page that defines the colors as variables."""
        file = io.StringIO()
        with _style(self.name):
            self.drawn.savefig(file, format="svg", transparent=True)
        text = with_variables(NOT_FOR_PAGES.sub("", file.getvalue()).strip())
        return re.sub(r"font: ([\d.]+px)[^;\"]*", r"font: \1 system-ui, sans-serif", text)

    def png(self) -> bytes:
        """Return it with a legend, on white."""
        lines = extra.load("matplotlib.lines").Line2D
        handles = [
            lines([], [], **look.line, marker=look.marker, label=label_text(label))
            for label, look in self.looks.items()
        ]
        width, height = self.drawn.get_size_inches()
        file = io.BytesIO()
        with _style(self.name):
            self.drawn.set_size_inches(width, height + LEGEND_LINE * (len(handles) + 1))
            legend = self.drawn.legend(
                handles=handles, loc="outside lower left", fontsize="small", handlelength=3
            )
            self.drawn.savefig(file, format="png", dpi=DPI)
        legend.remove()
        self.drawn.set_size_inches(width, height)
        return file.getvalue()


def axes_of(xlabel: str, ylabel: str, height: float = INCHES[1]) -> tuple[Any, Any]:
    """Return a figure and its axes.

    Raises:
        HubError: matplotlib is missing.
    """
    # The object interface only: pyplot keeps global state and looks for a display.
    made = extra.load("matplotlib.figure").Figure
    with _style():
        drawn = made(figsize=(INCHES[0], height), layout="constrained")
        axes = drawn.subplots()
    axes.set(xlabel=xlabel, ylabel=ylabel)
    return drawn, axes


def logarithmic(axis: Any) -> None:
    """Make an axis logarithmic, with plain numbers at its ticks."""
    ticker = extra.load("matplotlib.ticker")
    set_scale = axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale
    set_scale("log")
    axis.set_major_locator(ticker.LogLocator(subs=(1, 3), numticks=8))
    axis.set_minor_locator(ticker.NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def leaves(axes: Any, look: Look, x: float, top: float) -> None:
    """Mark where a contender leaves the picture at the top."""
    axes.plot([x], [top], marker="^", markersize=8, color=look.color, clip_on=False, zorder=5)


def label_text(label: str, longest: int = LONGEST) -> str:
    """Return a label as matplotlib takes it: short, and not as a formula."""
    return shortened(clean(label).replace("\n", " "), longest).replace("$", r"\$")


def file_name(*parts: str) -> str:
    """Return parts as a name that every file system takes."""
    return "-".join(re.sub(r"[^A-Za-z0-9_]+", "-", part).strip("-") or "task" for part in parts)


def limits(values: Sequence[float], start: Sequence[float], *, whole: bool) -> tuple[float, float]:
    """Return the limits of an axis of losses.

    They reach little above the loss before training: one contender that blew up must not press the
    others' curves flat.

    Args:
        values: Those to show, at least one.
        start: The losses before training.
        whole: Reach up to the loss before training, and as far above it as the lowest value is
            below it where there are values; if not, only as far as there are values below it.
    """
    low, first = min(values), max(start, default=math.inf)
    most = 2 * first - low if whole else first
    inside = [value for value in values if value <= most]
    high = max([*start, *inside] if whole else inside, default=low)
    if high <= low:  # nobody got better, or there is one value
        high = low + (abs(low) or 1.0)
    margin = 0.05 * (high - low)
    return low - margin, high + margin


def marks(diverged: bool, left: bool) -> str:
    """Explain the marks at the top, those that there are."""
    if diverged:
        return " A triangle at the top marks where a training diverged or left the picture."
    return " A triangle at the top marks where a training left the picture." if left else ""


def unit_label(kind: str, unit: str) -> str:
    """Label an axis of losses."""
    return f"{kind} ({label_text(unit)})" if unit else kind


@contextmanager
def _style(salt: str = "") -> Iterator[None]:
    # Names inside an SVG come from the salt: a page has many of them.
    context = extra.load("matplotlib").rc_context({**STYLE, "svg.hashsalt": salt})
    with context, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands for it
        yield
