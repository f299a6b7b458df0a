"""How figures and settings are written for people, in the terminal and in the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hub.text import shown, size_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hub.compare.statistics import Summary

UNKNOWN = "–"
"""Written in place of a missing figure."""
MINUTE = 60


def loss(value: float | None) -> str:
    """Write a loss with the digits that people compare."""
    if value is None:
        return UNKNOWN
    usual = 0.1 <= abs(value) < 1000 or value == 0  # noqa: PLR2004 - of losses that are trained
    return f"{value:.3f}" if usual else f"{value:.3g}"


def interval(summary: Summary | None) -> str:
    """Write a mean, and its interval where there is one."""
    if summary is None:
        return UNKNOWN
    if summary.half_width is None:
        return loss(summary.mean)
    mean = loss(summary.mean)
    plain = "e" not in mean and len(mean.partition(".")[2]) == 3  # noqa: PLR2004 - as `loss` has it
    spread = f"{summary.half_width:.3f}" if plain else f"{summary.half_width:.2g}"
    return f"{mean} ± {spread}"


def p(value: float, level: float, sign: str = "=") -> str:
    """Write a p value, on its side of the level however it is rounded."""
    if value < 0.001:  # noqa: PLR2004 - the usual end of what is written out
        return "p < 0.001"
    rounded = (f"{value:.{digits}g}" for digits in range(2, 17))
    text = next((one for one in rounded if (float(one) < level) is (value < level)), repr(value))
    return f"p {sign} {text}"


def number(value: float | None) -> str:
    """Write a whole number, or the mean of some."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def short(value: float | None) -> str:
    """Write a measurement with three digits."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"  # noqa: PLR2004 - three digits


def duration(seconds: float | None) -> str:
    """Write seconds, or minutes where there are many."""
    if seconds is None:
        return UNKNOWN
    if seconds < 2 * MINUTE:
        return f"{short(seconds)} s"
    return f"{seconds / MINUTE:,.1f} min"


def percent(fraction: float | None) -> str:
    """Write a fraction."""
    return UNKNOWN if fraction is None else f"{100 * fraction:.0f} %"


def size(value: float | None) -> str:
    """Write bytes in binary units, in at most eight characters."""
    return UNKNOWN if value is None else size_text(value)


def settings(arguments: Mapping[str, Any]) -> str:
    """Write arguments on one line, numbers with four digits."""
    return ", ".join(f"{name}={value_text(value)}" for name, value in arguments.items())


def value_text(value: Any) -> str:
    """Write one argument's value."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(value_text, value))})"
    return value if isinstance(value, str) else shown(value)
