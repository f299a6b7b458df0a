"""Import what an optimizer's import path names."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from hub import backend
from hub.errors import PluginError, UnknownOptimizerError

if TYPE_CHECKING:
    from collections.abc import Callable


def load_factory(path: str) -> Callable[..., Any]:
    """Return the class or function that a path such as "torch.optim:NAdam" names.

    Raises:
        UnknownOptimizerError: There is no such module or attribute, or it is not callable, or a
            class of something else.
        PluginError: The module cannot be imported.
    """
    module, _, attribute = path.partition(":")
    found = _import(module, path)
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise _no_attribute(path, found, name)
        found = getattr(found, name)
    if not callable(found) or (isinstance(found, type) and not _is_optimizer(found)):
        what = found if isinstance(found, type) else type(found)
        raise UnknownOptimizerError(
            f"{path} is not an optimizer, but "
            + (f"the class {what.__name__}" if what is found else f"a {what.__name__}"),
            where=path,
            fix="name a subclass of torch.optim.Optimizer, or a function that returns one",
        )
    factory: Callable[..., Any] = found
    return factory


def _import(module: str, path: str) -> Any:
    try:
        return backend.load(module)
    except (Exception, SystemExit) as error:  # whatever the module raises
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{module}.".startswith(f"{missing}."):
            raise UnknownOptimizerError(
                f"there is no module '{missing}'",
                where=path,
                fix="install the package that has it; for a file in this folder, run `python -m "
                "hub` in place of `hub`",
            ) from error
        raise PluginError(
            f"{module} cannot be imported: {type(error).__name__}: {error}",
            where=path,
            fix=f"see what `python -c 'import {module}'` raises",
        ) from error


def _no_attribute(path: str, owner: object, name: str) -> UnknownOptimizerError:
    known = [key for key, value in vars(owner).items() if _is_optimizer(value)]
    near = get_close_matches(name.lower(), [key.lower() for key in known], n=3, cutoff=0.5)
    meant = [key for each in near for key in known if key.lower() == each]
    return UnknownOptimizerError(
        f"{getattr(owner, '__name__', type(owner).__name__)} has no '{name}'",
        where=path,
        fix=f"did you mean {' or '.join(dict.fromkeys(meant))}?" if meant else "",
    )


def _is_optimizer(value: object) -> bool:
    """Whether it is a subclass of torch's `Optimizer`, without importing torch."""
    bases = value.__mro__[1:] if isinstance(value, type) else ()
    return any(
        base.__name__ == "Optimizer" and base.__module__ == "torch.optim.optimizer"
        for base in bases
    )
