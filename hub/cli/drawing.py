"""Curves as text and as pictures."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rich.text import Text

from hub.errors import HubError
from hub.experiments import extra

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

FORMATS = (".png", ".svg")
HEIGHT, WIDEST = 12, 100
"""Lines of a curve, and the most columns of it with its labels."""
BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""What each dot of a Braille character, by row and column, adds to U+2800."""


def show(values: list[float], title: str, console: Console) -> None:
    """Print a curve over its steps: of Braille dots in a terminal, of stars in a pipe."""
    top = f"{max(values):.3g}"
    width = max(2, min(console.width, WIDEST) - len(top) - 1)
    fine = console.is_terminal and console.encoding.startswith("utf")
    lines = (braille if fine else stars)(values, width, HEIGHT)
    console.print(Text(title, style="bold"))
    for label, line in zip([top, *[""] * (HEIGHT - 2), "0"], lines, strict=True):
        console.print(Text(f"{label:>{len(top)}} ").append(line, style="cyan"))
    console.print(Text(f"{'':{len(top)}} 0{f'step {len(values) - 1}':>{width - 1}}"))


def braille(values: list[float], width: int, height: int) -> list[str]:
    """Return lines with two by four dots a character."""
    dots = _dots(values, 2 * width, 4 * height)
    return [
        "".join(
            chr(
                0x2800
                + sum(
                    bit
                    for down, bits in enumerate(BRAILLE)
                    for across, bit in enumerate(bits)
                    if (2 * column + across, 4 * line + down) in dots
                )
            )
            for column in range(width)
        )
        for line in range(height)
    ]


def stars(values: list[float], width: int, height: int) -> list[str]:
    """Return lines of plain text."""
    dots = _dots(values, width, height)
    return [
        "".join("*" if (column, line) in dots else " " for column in range(width))
        for line in range(height)
    ]


def figure(values: list[float], title: str) -> Any:
    """Return a matplotlib figure of a curve over its steps.

    Raises:
        HubError: matplotlib is missing.
    """
    # The object interface only: pyplot keeps global state and looks for a display.
    drawn = extra.load("matplotlib.figure").Figure(figsize=(6, 2.5), layout="constrained")
    axes = drawn.subplots()
    axes.plot(values)
    axes.set(xlabel="optimizer step", ylabel="learning rate", title=title.replace("$", r"\$"))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return drawn


def check_format(out: Path, option: str) -> None:
    """Check that a picture can be written to a file of this name.

    Raises:
        HubError: It ends in another format.
    """
    if out.suffix not in FORMATS:
        raise HubError(
            f"{out.name} is not a supported image file name",
            where=option,
            fix=f"end it with {' or '.join(FORMATS)}",
        )


def save(drawn: Any, out: Path, option: str) -> None:
    """Write a matplotlib figure.

    Raises:
        HubError: The file cannot be written.
    """
    try:
        drawn.savefig(out, format=out.suffix.removeprefix("."))
    except OSError as error:
        raise HubError(
            f"{out} cannot be written: {error.strerror}",
            where=option,
            fix="name a file in a folder that exists and can be written to",
        ) from error


def _dots(values: list[float], columns: int, rows: int) -> set[tuple[int, int]]:
    """Return column and row, from the top left, of the points of a curve above 0 and between."""
    top = max(values) or 1.0
    last = len(values) - 1
    picked = [values[round(last * column / (columns - 1))] for column in range(columns)]
    levels = [round((rows - 1) * (1 - value / top)) for value in picked]
    dots = {(0, levels[0])}
    for column, (before, level) in enumerate(pairwise(levels), start=1):
        step = 1 if level > before else -1
        dots |= {(column, row) for row in range(before + step, level, step)} | {(column, level)}
    return dots
