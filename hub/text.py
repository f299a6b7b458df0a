"""Make text from outside safe to print, and short.

Names, versions, messages and values come from plugins, files and callers. An escape sequence in one
of them could recolor a terminal, rename its window, or make a line look like another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_LONGEST = 80


def clean(text: str) -> str:
    r"""Return a text with every unprintable character escaped, such as "\x1b".

    These are the ones that `str.isprintable` rejects: control characters, marks that change the
    direction of writing, and lone surrogates. Newlines stay.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char == "\n" or char.isprintable() else char.encode("unicode_escape").decode()
        for char in text
    )


def shown(value: object, longest: int = _LONGEST) -> str:
    """Return a value's `repr` for a message, on one line; its class name if that fails."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - deep nesting, 5000 digits, third-party classes
        text = f"<{type(value).__name__}>"
    return shortened(clean(text).replace("\n", " "), longest)


def listed(names: Sequence[str], longest: int = 3) -> str:
    """List the first few names, and count the rest."""
    more = f" and {len(names) - longest} more" if len(names) > longest else ""
    return ", ".join(names[:longest]) + more


def shape_text(shape: Iterable[int]) -> str:
    """Return a shape as text, such as "16×4"; "scalar" if it has no dimensions."""
    return "×".join(map(str, shape)) or "scalar"


def size_text(size: float) -> str:
    """Write bytes in binary units, in at most eight characters."""
    amount, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if amount < 999.5:  # noqa: PLR2004 - where rounding makes it four digits
            break
        amount, unit = amount / 1024, larger
    decimals = 1 if unit != "B" and amount < 99.95 else 0  # noqa: PLR2004 - likewise
    return f"{amount:.{decimals}f} {unit}"


def shortened(text: str, longest: int = _LONGEST) -> str:
    """Cut off a text that is too long for a message."""
    return text if len(text) <= longest else text[: longest - 1] + "…"
