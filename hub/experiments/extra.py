"""The packages that only comparing and drawing need."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from hub.errors import HubError


def require(*names: str) -> None:
    """Check that top-level packages are installed, without importing them.

    Raises:
        HubError: One is missing.
    """
    for name in names:
        if find_spec(name) is None:
            raise HubError(
                f"{name} is needed here, and not installed",
                where=name,
                fix='pip install "hub[compare]"',
            )


def load(module: str) -> Any:
    """Import a module of one of those packages.

    Raises:
        HubError: The package is not installed.
    """
    require(module.partition(".")[0])
    return import_module(module)
