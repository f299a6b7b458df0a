"""Import the package behind a plugin, without the side effects of that import."""

from __future__ import annotations

import sys
from importlib import import_module
from operator import attrgetter
from threading import RLock
from typing import Any

from hub.quiet import no_output, no_warnings, settings_kept

_lock = RLock()
"""One import at a time: torch._dynamo and torch._inductor import each other, as other packages do,
and two threads that start at different ends get half-initialized modules."""
_importing: list[str] = []
"""The modules that the holder of the lock is importing, each from within the one before."""


def load(module: str) -> Any:
    """Import a plugin's factory module, and with it the package that it wraps.

    Some packages configure logging, print hints or warn when they are imported (grokadamw 0.1.2
    installs a root handler, bitsandbytes 0.50.2 and torchao 0.18.0 advertise other packages).
    Building an optimizer by name must not do that to the caller. Other threads are not silenced
    meanwhile, and may call this too.

    Args:
        module: Name of the module, such as "hub_galore.factory".

    Raises:
        ImportError: The package is not installed.
    """
    found = sys.modules.get(module)
    if found is not None and not _is_partial(found):
        return found
    with _lock:
        if _importing:
            return import_module(module)
        _importing.append(module)
        try:
            with settings_kept(), no_output(), no_warnings():
                return import_module(module)
        finally:
            _importing.pop()


def load_object(path: str) -> Any:
    """Import the object that a path such as "torch.optim:SGD" names, its module as in `load`.

    Raises:
        ImportError: The module cannot be found.
        AttributeError: The module does not have the object.
    """
    module, _, name = path.partition(":")
    return attrgetter(name)(load(module))


def _is_partial(module: object) -> bool:
    """Whether a thread is still executing a module; `importlib` asks the same way."""
    return getattr(getattr(module, "__spec__", None), "_initializing", False)
