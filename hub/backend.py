"""Import the package behind a plugin, and nothing that its import does besides."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def load(module: str) -> Any:
    """Import a plugin's factory module, and with it the package that it wraps.

    Some packages configure logging, print hints or warn when they are imported (grokadamw 0.1.2
    installs a root handler, bitsandbytes 0.50.2 and torchao 0.18.0 advertise other packages). A
    lookup by name must not do that to its caller.

    Args:
        module: Name of the module, such as "hub_galore.factory".

    Raises:
        ImportError: The package is not there.
    """
    with _contained():
        return import_module(module)


@contextlib.contextmanager
def _contained() -> Iterator[None]:
    root, level = logging.getLogger(), logging.root.level
    handlers, disabled = list(root.handlers), root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.disable(disabled)
