"""The terminal that all of hub's output goes through."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from hub.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterable


class Terminal(Console):
    """A console that prints text from any source literally.

    It escapes control characters, and "[bold]" is not markup.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Return a text to measure and render; rich itself drops a few control characters."""
        return super().render_str(clean(text), **settings)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render as rich does; its own control codes are separate segments."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else clean(text), style, control)


def literal(text: str, style: str = "") -> Text:
    """Return a text that any console prints literally."""
    return Text(clean(text), style)


def as_text(renderable: RenderableType, width: int = 100) -> str:
    """Render what rich can print as plain text, `width` characters wide."""
    console = Terminal(file=StringIO(), width=width, color_system=None)
    console.print(renderable)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines())
