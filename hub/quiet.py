"""Silence for one thread, while all others are heard.

Warnings filters, streams and log handlers belong to the whole process. What is put into them here
asks which thread is calling, and is inert once the block is over, whoever still holds it.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import warnings
from threading import get_ident
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class Hush:
    """Is on in the thread that made it, until `end` is called."""

    def __init__(self, message: str = "") -> None:
        self._thread: int | None = get_ident()
        self._message = re.compile(message, re.IGNORECASE)

    def is_on(self) -> bool:
        """Whether the calling thread is to be silent."""
        return self._thread == get_ident()

    def end(self) -> None:
        """Silence nothing from now on."""
        self._thread = None

    def match(self, text: str) -> bool:
        """Say whether a warning is this thread's: `warnings` asks the pattern of a filter."""
        return self.is_on() and self._message.match(text) is not None

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a log handler may show a record."""
        return record.levelno > logging.WARNING or not self.is_on()


class _Stream:
    """A text stream that drops what the hushed thread writes, and is the real one otherwise.

    Handlers of loggers keep the stream that was there when they were made, so this one has to work
    for as long as the process lives.
    """

    def __init__(self, real: Any, hush: Hush) -> None:
        self._real = real
        self._hush = hush

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def write(self, text: str) -> int:
        """Write a text, or drop it; return its length."""
        written: int = len(text) if self._hush.is_on() else self._real.write(text)
        return written

    def writelines(self, lines: list[str]) -> None:
        """Write some texts, or drop them."""
        for line in lines:
            self.write(line)


@contextlib.contextmanager
def no_warnings(category: type[Warning] = Warning, message: str = "") -> Iterator[None]:
    """Ignore some warnings of this thread inside the block.

    `warnings.catch_warnings` replaces the filters of all threads, and two blocks that overlap leave
    those of either behind.

    Args:
        category: Of the warnings.
        message: A regular expression that their start matches.
    """
    hush = Hush(message)
    entry: Any = ("ignore", hush, category, None, 0)
    filters: Any = warnings.filters
    filters.insert(0, entry)  # `simplefilter` makes Python forget what it has shown once
    try:
        yield
    finally:
        hush.end()
        _remove(entry, filters)


@contextlib.contextmanager
def no_output() -> Iterator[None]:
    """Drop what this thread prints and logs inside the block, up to and with warnings.

    For one thread at a time: of two that overlap, one would put the other's stream back.
    """
    hush = Hush()
    streams = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    hushed = {name: _Stream(real, hush) for name, real in streams.items() if real is not None}
    handlers = _handlers()
    try:
        for handler in handlers:
            handler.addFilter(hush)
        for name, stream in hushed.items():
            setattr(sys, name, stream)
        yield
    finally:
        hush.end()
        for name, stream in hushed.items():
            if getattr(sys, name) is stream:  # else another thread has its own there
                setattr(sys, name, streams[name])
        for handler in handlers:
            handler.removeFilter(hush)


@contextlib.contextmanager
def settings_kept() -> Iterator[None]:
    """Undo what code inside the block does to the warnings filters and to the root logger."""
    root, filters = logging.getLogger(), warnings.filters
    handlers, level, disabled = list(root.handlers), root.level, root.manager.disable
    entries = _lasting(filters)
    try:
        yield
    finally:
        if _lasting(filters) != entries:
            hushes = [entry for entry in filters if isinstance(entry[1], Hush)]
            filters[:] = [*hushes, *entries]  # type: ignore[index]  # typeshed: a sequence
        if root.handlers != handlers:
            root.handlers[:] = handlers
        if root.level != level:
            root.setLevel(level)
        if root.manager.disable != disabled:
            logging.disable(disabled)


def _lasting(filters: Any) -> list[Any]:
    """Return the filters that no `no_warnings` block, of any thread, is going to remove."""
    return [entry for entry in filters if not isinstance(entry[1], Hush)]


def _remove(entry: Any, filters: Any) -> None:
    """Take a filter out of the list it was put into, and out of a copy that is in use by now."""
    in_use: Any = warnings.filters
    for entries in (filters, in_use):
        with contextlib.suppress(ValueError):
            entries.remove(entry)


def _handlers() -> list[logging.Handler]:
    root = logging.getLogger()
    loggers = [root, *root.manager.loggerDict.copy().values()]
    found = (h for logger in loggers if isinstance(logger, logging.Logger) for h in logger.handlers)
    return list(dict.fromkeys(found))
