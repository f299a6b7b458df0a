"""Text from outside, made fit for a terminal.

Names, versions, messages and values come from plugins, files and callers. An escape sequence in one
of them could recolor a terminal, rename its window, or make a line read as another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_LONGEST = 80


def clean(text: str) -> str:
    r"""Return a text with every character that is not printed written out, as "\x1b" is.

    Those are control characters, marks that turn the direction of writing, and lone surrogates, as
    `str.isprintable` has them. Newlines stay.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char == "\n" or char.isprintable() else char.encode("unicode_escape").decode()
        for char in text
    )


def shown(value: object, longest: int = _LONGEST) -> str:
    """Return how a value is written in a message: its `repr`, as far as that works, in one line."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - deep nesting, 5000 digits, a stranger's class
        text = f"<{type(value).__name__}>"
    return shortened(clean(text).replace("\n", " "), longest)


def listed(names: Sequence[str], longest: int = 3) -> str:
    """Return the first of some names, and how many more there are."""
    more = f" and {len(names) - longest} more" if len(names) > longest else ""
    return ", ".join(names[:longest]) + more


def shortened(text: str, longest: int = _LONGEST) -> str:
    """Return the start of a text that is too long for a message."""
    return text if len(text) <= longest else text[: longest - 1] + "…"
