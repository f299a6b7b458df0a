"""The text form of arguments, `key=value, key=value`, with errors that point at the mistake."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from hub.errors import OptimArgsError
from hub.text import shortened

if TYPE_CHECKING:
    from collections.abc import Iterator

_OPEN, _CLOSE = "([{", ")]}"
_PAIR = {")": "(", "]": "[", "}": "{"}
_BARE_WORD = re.compile(r"[\w.+/:@*-]+")
_LITERAL = re.compile(
    r"""(?>
    \s | [][(){},:+-] | \b(?:None|True|False)\b
    | [uU]? (?: ' (?:[^'\\\n] | \\ESCAPE)*+ ' | " (?:[^"\\\n] | \\ESCAPE)*+ " )
    | [rR] (?: ' (?:[^'\\\n] | \\.)*+ ' | " (?:[^"\\\n] | \\.)*+ " )
    | 0[xX][\da-fA-F_]++ | 0[bBoO][\d_]++ | (?:\d[\d_]*+\.?|\.\d)[\d_]*+(?:[eE][+-]?\d++)?
    )*+""".replace("ESCAPE", r"""(?:[\\'"abfnrtvxNuU] | [0-3][0-7]{0,2} | [4-7][0-7]?(?![0-7]))"""),
    re.VERBOSE | re.ASCII,
)
"""The tokens of plain literals. Python warns about others that it accepts, such as "0in" and
"\\d", and the filters that decide about a warning are shared by all threads."""
_CONSTANTS = {"none": None, "null": None, "true": True, "false": False}


class Item(NamedTuple):
    """One `key=value` of an `optim_args` string, with the place of each part in it."""

    key: str
    value: str
    key_at: int
    value_at: int


def parse_arguments(text: str) -> dict[str, str]:
    """Split `key=value, key=value` into keys and the texts of their values.

    Values are Python literals or bare words; brackets and quotes protect commas. Nothing is
    evaluated; the arguments model decides what a text means.

    Raises:
        OptimArgsError: The text is malformed; the error points at the place.
    """
    values: dict[str, str] = {}
    for item in _items(text):
        if item.key in values:
            raise _error_at(text, item.key_at, f"'{item.key}' is given twice", "remove one")
        try:
            read_value(item.value)
        except ValueError as error:
            raise _error_at(
                text,
                item.value_at,
                f"the value of '{item.key}' is neither a literal nor a word: {error}",
                "quote it, or write a Python literal such as 64, 1e-4, True or (0.9, 0.95)",
            ) from error
        values[item.key] = item.value.strip()
    return values


def read_value(text: str) -> Any:
    """Read a text as None, True, False, a Python literal or else a bare word.

    Raises:
        ValueError: It is none of these.
    """
    text = text.strip()
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
    try:
        if _LITERAL.fullmatch(text):
            return _plain(ast.literal_eval(text))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        pass
    if _BARE_WORD.fullmatch(text):
        return text
    raise ValueError(shortened(text))


def pointer(text: str | None, key: str) -> str:
    """Return the text with a mark under a key; "" if the key did not come from a text."""
    if text is None:
        return ""
    places = [item.key_at for item in _items(text) if item.key == key]
    return _marked(text, places[0]) if places else ""


def _error_at(text: str, at: int, what: str, fix: str) -> OptimArgsError:
    return OptimArgsError(
        f"{what}{_marked(text, at)}", where=f"optim_args, character {at + 1}", fix=fix
    )


def _marked(text: str, at: int, width: int = 60) -> str:
    start = max(0, at - width // 2)
    shown = "".join(char if char.isprintable() else " " for char in text[start : start + width])
    return f"\n    {shown}\n    {' ' * (at - start)}^"


def _items(text: str) -> Iterator[Item]:
    start = 0
    for end in _commas(text):
        piece = text[start:end]
        if piece.strip():
            yield _item(text, piece, start)
        elif end < len(text):
            raise _error_at(text, end, "there is nothing before this comma", "remove it")
        start = end + 1


def _item(text: str, piece: str, start: int) -> Item:
    key, equals, value = piece.partition("=")
    at = start + len(key) - len(key.lstrip())
    if not equals:
        raise _error_at(text, at, f"'{piece.strip()}' has no value", "write key=value")
    if not all(part.isidentifier() for part in key.strip().split(".")):
        raise _error_at(text, at, f"'{key.strip()}' is not a key", "write key=value")
    value_at = start + len(key) + 1 + len(value) - len(value.lstrip())
    if not value.strip():
        raise _error_at(
            text, min(value_at, start + len(piece)), f"'{key.strip()}' has no value", ""
        )
    return Item(key.strip(), value, at, value_at)


def _commas(text: str) -> Iterator[int]:
    """Yield the positions of the commas outside brackets and quotes, and the end of the text."""
    opened: list[tuple[str, int]] = []
    quote: tuple[str, int] | None = None
    skip = False
    for at, char in enumerate(text):
        if skip:
            skip = False
        elif quote:
            skip = char == "\\"
            quote = None if char == quote[0] else quote
        elif char in "'\"":
            quote = (char, at)
        elif char in _OPEN:
            opened.append((char, at))
        elif char in _CLOSE:
            if not opened or opened.pop()[0] != _PAIR[char]:
                raise _error_at(text, at, f"'{char}' closes nothing", "balance the brackets")
        elif char == "," and not opened:
            yield at
    for char, at in filter(None, [quote, *opened]):
        raise _error_at(text, at, f"'{char}' is never closed", f"close the '{char}'")
    yield len(text)


def _plain(value: Any) -> Any:
    """Return the value with lists as tuples, if it consists of plain values only."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return tuple(_plain(item) for item in value)
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    raise ValueError(type(value).__name__)
