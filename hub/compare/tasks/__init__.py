"""What a study trains: built-in tasks by name, and those of its user by import path."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from hub.compare.tasks import imported, problems
from hub.compare.tasks.dry_run import dry_run
from hub.compare.tasks.task import Task, to_device
from hub.errors import HubError
from hub.text import shown

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BUILT_IN = {
    "llama": "hub.compare.tasks.llama",
    "digits": "hub.compare.tasks.digits",
    "lora": "hub.compare.tasks.lora",
}
"""Modules with `check(options)`, which imports nothing heavy, `make(options)`, and `TAKES`, the
names of the options that count, and `PRELOADED`, modules that take seconds to import."""
ALL_PROBLEMS = "problems"
"""Stands for all of them."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a study says about its tasks; None is what each says itself."""

    batch_size: int | None = None
    sequence_length: int | None = None
    data: Path | None = None
    model: Path | None = None


class _Source(NamedTuple):
    """Where a task comes from."""

    check: Callable[[Options], object]
    make: Callable[[Options], Task]
    takes: tuple[str, ...] = ()
    preloaded: tuple[str, ...] = ()


def expanded(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of single tasks, each once."""
    single = (
        one for name in names for one in (problems.NAMES if name == ALL_PROBLEMS else (name,))
    )
    return tuple(dict.fromkeys(single))


def check(name: str, options: Options) -> None:
    """Find what would make a task useless, before any process is started.

    Raises:
        HubError: There is no such task, or its data, model or packages cannot be used.
    """
    _source(name).check(options)


def check_options(names: tuple[str, ...], options: Options) -> None:
    """Check that each option counts for one of the tasks at least.

    Raises:
        HubError: There is no such task, or one option would change nothing.
    """
    taken = {option for name in names for option in _source(name).takes}
    for one in fields(options):
        if getattr(options, one.name) is not None and one.name not in taken:
            raise HubError(
                f"{one.name} changes nothing: no task of this study takes it",
                where=one.name,
                fix="leave it out, or train a task that takes it: "
                + ", ".join(name for name in BUILT_IN if one.name in _source(name).takes),
            )


def preloaded(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the modules that are worth importing once for all trainings of these tasks.

    Raises:
        HubError: There is no such task.
    """
    return tuple(dict.fromkeys(one for name in names for one in _source(name).preloaded))


def load(name: str, options: Options) -> Task:
    """Return a task, named as asked. Its data and models are loaded when its functions are called.

    Raises:
        HubError: As `check`.
    """
    return _source(name).make(options)


def _source(name: str) -> _Source:
    if name in BUILT_IN:
        module = import_module(BUILT_IN[name])
        return _Source(module.check, module.make, module.TAKES, module.PRELOADED)
    if name in problems.NAMES:
        return _Source(lambda _: None, lambda _: problems.make(name))
    if ":" in name:
        make = partial(imported.load, name)
        return _Source(lambda _: make(), lambda _: make())
    raise HubError(
        f"there is no task {shown(name)}",
        where="tasks",
        fix=f"one of {', '.join(BUILT_IN)}, {ALL_PROBLEMS}, or an import path, module:function",
    )


__all__ = [
    "Options",
    "Task",
    "check",
    "check_options",
    "dry_run",
    "expanded",
    "load",
    "preloaded",
    "to_device",
]
