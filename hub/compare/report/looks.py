"""How each contender looks, the same in all pictures: color, line and marker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hub.compare.report import markup

if TYPE_CHECKING:
    from collections.abc import Iterable

INK, MUTED, LINE, PAPER = "#1c2024", "#5b6470", "#dfe3e7", "#ffffff"
"""Of pictures on a light page: text, what is less than text, grids, and what is behind."""
PAGE = {"ink": (INK, "#e7e9ec"), "muted": (MUTED, "#a0a9b4"), "line": (LINE, "#32373d")}
PAGE |= {"paper": (PAPER, "#15181b")}
"""The same by name, on a light page and on a dark one."""

# The palette of Okabe and Ito, which people see apart however they see colors; darker on white and
# lighter on black where a line would be hard to see (https://jfly.uni-koeln.de/color/). Its yellow
# is left out, its black a gray.
COLORS = (
    ("#0072b2", "#57a5ea"),
    ("#d55e00", "#ff8242"),
    ("#009e73", "#2ccb9b"),
    ("#b9588f", "#e79bc8"),
    ("#b77b00", "#f2b632"),
    ("#3597d3", "#abdcfb"),
    ("#4f565e", "#c3c9cf"),
)
DASHES = ((), (6, 2), (2, 2), (7, 2, 2, 2))
"""Of lines, as matplotlib and SVG take them: on and off, in widths of the line."""
MARKERS = {
    "o": "M8 4a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "s": "M8.5.5h7v7h-7z",
    "^": "M12 .2l4.3 7.6h-8.6z",
    "D": "M12-.6l4.6 4.6l-4.6 4.6l-4.6-4.6z",
    "v": "M12 7.8l4.3-7.6h-8.6z",
}
"""Markers of matplotlib, and the same in SVG with their middle at 12, 4."""


@dataclass(frozen=True)
class Look:
    """How one contender is drawn."""

    index: int

    @property
    def color(self) -> str:
        """On a light page."""
        return COLORS[self.index % len(COLORS)][0]

    @property
    def dashes(self) -> tuple[int, ...]:
        """The gaps of its line."""
        return DASHES[self.index % len(DASHES)]

    @property
    def marker(self) -> str:
        """As matplotlib calls it."""
        return tuple(MARKERS)[self.index % len(MARKERS)]

    @property
    def line(self) -> dict[str, object]:
        """What matplotlib's `plot` takes."""
        return {"color": self.color, "dashes": self.dashes, "linewidth": 1.6}

    @property
    def swatch(self) -> str:
        """Its line and marker as a small picture in a page; the name beside it says the same."""
        color = f"var(--c{self.index % len(COLORS)})"
        dashes = " ".join(map(str, self.dashes)) or "none"
        return (
            f'<svg class="swatch" viewBox="0 -2 24 12" aria-hidden="true">'
            f'<path d="M0 4H24" stroke="{color}" stroke-width="1.6" stroke-dasharray="{dashes}"/>'
            f'<path d="{MARKERS[self.marker]}" fill="{color}"/></svg>'
        )

    def named(self, label: str) -> str:
        """Return the swatch and a contender's label as HTML."""
        return f'<span class="name">{self.swatch}<span>{markup.label(label)}</span></span>'


def looks(contenders: Iterable[str]) -> dict[str, Look]:
    """Return the look of each contender, by its place in the study."""
    return {contender: Look(index) for index, contender in enumerate(contenders)}


def variables() -> str:
    """Return the colors as CSS variables, for light pages and dark ones."""
    named = PAGE | {f"c{index}": pair for index, pair in enumerate(COLORS)}
    return "".join(f"--{name}:light-dark({light},{dark});" for name, (light, dark) in named.items())


def with_variables(svg: str) -> str:
    """Replace the colors of a light page by the variables."""
    named = PAGE | {f"c{index}": pair for index, pair in enumerate(COLORS)}
    for name, (light, _) in named.items():
        svg = svg.replace(light, f"var(--{name})")
    return svg
