"""Pieces of HTML: every text from outside goes through here."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

from hub.text import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

BREAKS, BREAK = re.compile(r"([,:+_]|(?<=[a-z])\.)(?=\w)"), r"\1<wbr>"
"""Where a name may go on in a new line."""
P_VALUE = re.compile(r"\bp (=|&lt;|≤|≥) ")
"""In HTML, where a line must not break."""


def text(value: object) -> str:
    """Return any text as HTML, without what could change how it is read."""
    return escape(clean(str(value)))


def label(value: str) -> str:
    """Return a contender's label, which may break into lines after its punctuation."""
    return BREAKS.sub(BREAK, text(value))


def sentence(say: Callable[[Callable[[str], str]], str]) -> str:
    """Return a sentence in which names of contenders stand out.

    Args:
        say: Takes how to write a name. No name has the marks around it: `clean` escapes them.
    """
    marked = say(lambda name: f"\ue000{clean(name)}\ue001")
    parts = re.split("\ue000(.*?)\ue001", marked, flags=re.DOTALL)
    return "".join(
        f"<b>{label(part)}</b>" if place % 2 else P_VALUE.sub(r"p&nbsp;\1&nbsp;", text(part))
        for place, part in enumerate(parts)
    )


def pairs(items: Mapping[str, str]) -> str:
    """Return names and texts as a list of pairs."""
    rows = "\n".join(f"<dt>{text(key)}</dt><dd>{text(value)}</dd>" for key, value in items.items())
    return f"<dl>\n{rows}\n</dl>" if items else ""


def notes(heading: str, items: Iterable[str], kind: str = "") -> str:
    """Return texts as a list, each once, under a heading."""
    rows = "\n".join(f"<li>{text(item)}</li>" for item in dict.fromkeys(items))
    mark = f" {kind}" if kind else ""
    return f'<h4>{text(heading)}</h4>\n<ul class="notes{mark}">\n{rows}\n</ul>' if rows else ""


def folded(summary: str, html: str, *, opened: bool = False) -> str:
    """Return HTML that opens and closes on a click."""
    mark = " open" if opened else ""
    return f"<details{mark}><summary>{text(summary)}</summary>\n{html}\n</details>"


def table(caption: str, head: Sequence[str], body: Iterable[str], kind: str) -> str:
    """Return a table that scrolls by itself where the page is narrow.

    Args:
        caption: What it shows.
        head: Headings, as texts.
        body: Rows, as HTML.
        kind: Its class in the style sheet.
    """
    headings = "".join(f'<th scope="col">{text(one)}</th>' for one in head)
    rows = "\n".join(body)
    return (
        f'<div class="scroll">\n<table class="{kind}">\n<caption>{text(caption)}</caption>\n'
        f"<thead><tr>{headings}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</div>"
    )


def row(heading: str, cells: Iterable[str]) -> str:
    """Return a row of a table: its heading and its cells, as HTML."""
    return f'<tr><th scope="row">{heading}</th>{"".join(cells)}</tr>'
