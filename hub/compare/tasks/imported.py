"""Tasks of one's own, by import path."""

from __future__ import annotations

import inspect
import sys
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import import_module, invalidate_caches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hub.compare.result import digest
from hub.compare.tasks.task import Task
from hub.errors import HubError
from hub.text import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType


def load(path: str) -> Task:
    """Import a function, from the current folder too, and return the task that it makes.

    Its name is the path. If it has no fingerprint, that is a digest of the module's text.

    Args:
        path: `package.module:function`.

    Raises:
        HubError: There is no such function, it fails, or it returns something else.
    """
    name, _, function = path.partition(":")
    if not name or not function.isidentifier():
        raise HubError(
            f"{shown(path)} is not an import path",
            where="tasks",
            fix="module:function, such as examples.task:make",
        )
    with _current_folder_first():
        module = _imported(name, path)
        task = _made(_function(module, function, path), path)
    fingerprint = task.fingerprint or digest(_text(module, path))
    return replace(
        task, name=path, fingerprint=fingerprint, batches=lambda seed: _endless(task, seed, path)
    )


@contextmanager
def _current_folder_first() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    invalidate_caches()
    try:
        yield
    finally:
        with suppress(ValueError):  # the module may have removed it
            sys.path.remove(folder)


def _imported(name: str, path: str) -> ModuleType:
    try:
        return import_module(name)
    except Exception as error:  # whatever a module raises
        missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
        if missing and (name == missing or name.startswith(f"{missing}.")):
            raise HubError(
                f"there is no module {missing}",
                where=path,
                fix="an installed module, or one in the current folder",
            ) from error
        raise HubError(
            f"{name} cannot be imported: {type(error).__name__}: {error}",
            where=path,
            fix="repair the module",
        ) from error


def _function(module: ModuleType, name: str, path: str) -> Callable[[], object]:
    found = getattr(module, name, None)
    if found is None:
        raise HubError(
            f"{module.__name__} has no {name}",
            where=path,
            fix="name a function in it that returns a hub.compare.Task",
        )
    if not callable(found):
        raise HubError(
            f"{name} is not a function but {shown(found)}",
            where=path,
            fix="name a function without arguments that returns a hub.compare.Task",
        )
    result: Callable[[], object] = found
    return result


def _made(function: Callable[[], object], path: str) -> Task:
    try:
        task = function()
    except HubError:
        raise
    except Exception as error:  # whatever it raises
        raise HubError(
            f"it raised {type(error).__name__}: {error}",
            where=path,
            fix="repair the function; it is called without arguments",
        ) from error
    if not isinstance(task, Task):
        raise HubError(
            f"it returned {shown(task)}", where=path, fix="return a hub.compare.Task from it"
        )
    return task


def _text(module: ModuleType, path: str) -> str:
    try:
        return inspect.getsource(module)
    except OSError as error:
        raise HubError(
            f"the text of {module.__name__} cannot be read, which results would be compared by",
            where=path,
            fix="give the task a fingerprint",
        ) from error


def _endless(task: Task, seed: int, path: str) -> Iterator[Any]:
    """Yield the batches; a training that lacks some would not be comparable to others.

    Raises:
        HubError: They end.
    """
    count = 0
    for count, batch in enumerate(task.batches(seed), 1):  # noqa: B007 - used after the loop
        yield batch
    raise HubError(
        f"its batches ended after {count}",
        where=f"{path}: batches",
        fix="yield batches for as long as they are asked for, such as in a while loop",
    )
