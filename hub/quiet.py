"""Silence one thread, and no other.

Warnings filters, streams and log handlers belong to the whole process. What this
module adds to them asks which thread is calling, and does nothing once its block is over, even if
something still holds it.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import warnings
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Hush:
    """A switch that is on for the thread that created it, until `end` is called."""

    def __init__(self) -> None:
        self._thread: int | None = get_ident()

    def is_on(self) -> bool:
        """Whether the calling thread is to be silent."""
        return self._thread == get_ident()

    def end(self) -> None:
        """Silence nothing from now on."""
        self._thread = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a log handler may show a record."""
        return record.levelno > logging.WARNING or not self.is_on()


class _Patterns:
    """What each thread ignores of one category, in place of a warnings filter's pattern.

    All threads share one, which stays in the filters while any of them is in a block.
    """

    def __init__(self) -> None:
        self.of: dict[int, list[re.Pattern[str]]] = {}
        """The patterns of each thread, the innermost block's last."""

    def match(self, text: str) -> bool:
        """Return whether the calling thread ignores a warning; `warnings` calls this."""
        return any(pattern.match(text) for pattern in self.of.get(get_ident(), ()))


_lock = Lock()
"""Held while the warnings filters are changed here."""
_patterns: dict[type[Warning], _Patterns] = {}


class _Stream:
    """A text stream that drops what the hushed thread writes, and passes on everything else.

    Log handlers keep the stream they were created with, so this one has to work for as long as
    the process lives.
    """

    def __init__(self, real: Any, hush: _Hush) -> None:
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

    `warnings.catch_warnings` replaces the filters of all threads, and of two blocks that overlap,
    one leaves its filters behind.

    Args:
        category: Of the warnings.
        message: A regular expression that their start matches.
    """
    thread = get_ident()
    with _lock:
        patterns = _patterns.setdefault(category, _Patterns())
        patterns.of.setdefault(thread, []).append(re.compile(message, re.IGNORECASE))
        filters = _show(("ignore", patterns, category, None, 0))
    try:
        yield
    finally:
        with _lock:
            patterns.of[thread].pop()
            if not patterns.of[thread]:
                del patterns.of[thread]
            if not patterns.of:
                _hide(patterns, filters)


@contextlib.contextmanager
def no_output() -> Iterator[None]:
    """Drop what this thread prints, and what it logs up to the level of warnings, in the block.

    For one thread at a time: of two that overlap, one would restore the other's stream.
    """
    hush = _Hush()
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
            if getattr(sys, name) is stream:  # otherwise another thread has set its own
                setattr(sys, name, streams[name])
        for handler in handlers:
            handler.removeFilter(hush)


@contextlib.contextmanager
def settings_kept() -> Iterator[None]:
    """Undo what code inside the block does to the warnings filters and to the root logger."""
    root = logging.getLogger()
    handlers, level, disabled = list(root.handlers), root.level, root.manager.disable
    entries = _lasting(warnings.filters)
    try:
        yield
    finally:
        with _lock:
            current: Any = warnings.filters
            if _lasting(current) != entries:
                ours = [entry for entry in current if isinstance(entry[1], _Patterns)]
                current[:] = [*ours, *entries]
        if root.handlers != handlers:
            root.handlers[:] = handlers
        if root.level != level:
            root.setLevel(level)
        if root.manager.disable != disabled:
            logging.disable(disabled)


def _lasting(filters: Any) -> list[Any]:
    """Return the filters that no `no_warnings` block of any thread will remove."""
    return [entry for entry in filters if not isinstance(entry[1], _Patterns)]


def _show(entry: Any) -> Any:
    """Insert a filter before all others except ours, and return the list that it is in.

    In place: `warnings` of Python 3.11 crashes if the list is replaced while it iterates. After
    ours: if an entry is removed, a thread that has just reached it skips the next one.
    """
    filters: Any = warnings.filters
    if entry not in filters:  # `simplefilter` would make Python forget which warnings it has shown
        filters.insert(sum(isinstance(other[1], _Patterns) for other in filters), entry)
    return filters


def _hide(patterns: _Patterns, filters: Any) -> None:
    """Remove a filter from the list it was inserted into, and from a copy that replaced it."""
    in_use: Any = warnings.filters
    for entries in (filters, in_use):
        for entry in [entry for entry in entries if entry[1] is patterns]:
            entries.remove(entry)


def _handlers() -> list[logging.Handler]:
    root = logging.getLogger()
    loggers = [root, *root.manager.loggerDict.copy().values()]
    found = (h for logger in loggers if isinstance(logger, logging.Logger) for h in logger.handlers)
    return list(dict.fromkeys(found))
