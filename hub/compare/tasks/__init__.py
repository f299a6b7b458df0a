"""What a study trains: built-in tasks by name, and those of its user by import path."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hub.compare.tasks.task import Task
from hub.errors import HubError
from hub.text import shown

if TYPE_CHECKING:
    from pathlib import Path

BUILT_IN = {"llama": "hub.compare.tasks.llama"}
"""Modules with `check(options)`, which imports nothing heavy, and `make(options)`."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a study says about its tasks; None is what each says itself."""

    batch_size: int | None = None
    sequence_length: int | None = None
    data: Path | None = None
    model: Path | None = None


def check(name: str, options: Options) -> None:
    """Find what would make a task useless, before any process is started.

    Raises:
        HubError: There is no such task, or its data, model or packages cannot be used.
    """
    _module(name).check(options)


def load(name: str, options: Options) -> Task:
    """Return a task. It loads data and models only when its functions are called.

    Raises:
        HubError: As `check`.
    """
    task: Task = _module(name).make(options)
    return task


def _module(name: str) -> Any:
    if name not in BUILT_IN:
        raise HubError(
            f"there is no task {shown(name)}", where="tasks", fix=f"one of {', '.join(BUILT_IN)}"
        )
    return import_module(BUILT_IN[name])


__all__ = ["Options", "Task", "check", "load"]
