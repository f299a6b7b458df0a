"""List and describe installed optimizers and schedules, without importing torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.names.registry import default_registry

if TYPE_CHECKING:
    from hub.spec import OptimizerSpec


def list_optimizers(pattern: str = "*") -> list[str]:
    """Return the installed optimizer names that match a shell-style pattern, sorted.

    Reads package metadata only; imports no plugin.
    """
    return default_registry().names("optimizer", pattern)


def list_schedulers(pattern: str = "*") -> list[str]:
    """Return the installed schedule names that match a shell-style pattern, sorted."""
    return default_registry().names("scheduler", pattern)


def describe(name: str) -> OptimizerSpec:
    """Return an optimizer's spec: what it is, takes and can do.

    Imports its plugin, but not its backend.

    Raises:
        UnknownOptimizerError: No installed plugin offers the name.
        PluginError: The plugin cannot be used.
    """
    return default_registry().optimizer(name)
