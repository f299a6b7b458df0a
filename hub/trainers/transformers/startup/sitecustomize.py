"""Add hub's names to Transformers in this process, as soon as it imports Transformers.

Python's `site` imports the first module of this name on its path. `hub.trainers.transformers`
places this folder first when it runs a command, so other environments may import it, too: until
Transformers is imported it uses nothing but what Python has loaded by then.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec


def add_members() -> None:
    """Make the enum, which argument parsers read, accept hub's names."""
    from hub.trainers.transformers.enum_patch import add_members

    add_members()


def enable() -> None:
    """Make the Trainer build hub's names."""
    from hub.trainers.transformers.enabling import enable
    from hub.trainers.transformers.startup import OVERRIDE

    enable(override=OVERRIDE in os.environ)


# `transformers.trainer` imports the other, which programs also import before it or without it.
AFTER = {"transformers.training_args": add_members, "transformers.trainer": enable}


class Finder:
    """Finds these modules where others do, and calls a function after each has been executed."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return what the next finder returns, changed to call the function."""
        if name not in AFTER:
            return None
        rest = (finder for finder in sys.meta_path if finder is not Finder)
        found = (finder.find_spec(name, path, target) for finder in rest)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            _call_after(spec.loader, AFTER[name])
        return spec


def _call_after(loader: Any, function: Callable[[], None]) -> None:
    execute = loader.exec_module

    def exec_module(module: Any) -> None:
        execute(module)
        try:
            function()
        except ModuleNotFoundError as error:
            if str(error.name).partition(".")[0] != "hub":
                raise
            _warn()

    loader.exec_module = exec_module


def _warn() -> None:
    import warnings

    text = f"{sys.executable} has no hub: its Transformers has no optimizers but its own"
    warnings.warn(text, stacklevel=2)


def _run_the_next() -> None:
    """Execute the `sitecustomize` that this one hides."""
    here = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120 - pathlib is not loaded yet
    path = [entry for entry in sys.path if os.path.realpath(entry) != here]
    spec = PathFinder.find_spec("sitecustomize", path)
    if spec is not None and spec.loader is not None:
        sys.modules["sitecustomize"] = module = module_from_spec(spec)
        spec.loader.exec_module(module)


sys.meta_path.insert(0, Finder)
_run_the_next()
