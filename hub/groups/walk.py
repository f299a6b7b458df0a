"""Look at a model once, and remember what was there, as long as a plan is made."""

from __future__ import annotations

import re
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from torch.nn import Module, Parameter

PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
_WRAPPED = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
_current: ContextVar[Walk | None] = ContextVar("walk", default=None)


class Walk:
    """What a model consists of; to be used while nothing changes it.

    Args:
        model: The model.
    """

    def __init__(self, model: Module) -> None:
        self.model = model
        self.modules = list(model.named_modules())
        """Every module once, under its first name, as `named_modules` yields them."""
        self.remembered: dict[Hashable, Any] = {}
        """What was selected, for several optimizers that select the same."""

    @cached_property
    def classes(self) -> frozenset[type[Module]]:
        """The classes of all modules, which are few."""
        return frozenset(type(module) for _, module in self.modules)

    def has(self, classes: type[Module] | tuple[type[Module], ...]) -> bool:
        """Whether some module is an instance of one of these classes."""
        return any(issubclass(own, classes) for own in self.classes)

    @cached_property
    def parameters(self) -> list[tuple[str, Parameter]]:
        """Every parameter once, under its first plain name, as `named_parameters` yields them."""
        named: dict[int, tuple[str, Parameter]] = {}
        for prefix, module in self.modules:
            dot = f"{prefix}." if prefix else ""
            # `module.named_parameters(recurse=False)` does the same, twenty times slower.
            for name, parameter in module._parameters.items():  # noqa: SLF001
                if parameter is not None and id(parameter) not in named:
                    named[id(parameter)] = self.plain(dot + name), parameter
        return list(named.values())

    @cached_property
    def plain(self) -> Callable[[str], str]:
        """A function that removes wrappers from names: `hub.groups.modules.plain_names`."""
        inside = self._inside_parallel()
        if not inside and not any(_WRAPPED.search(f"{name}.") for name, _ in self.modules):
            return str

        def plain(name: str) -> str:
            dotted = f"{name}."
            for prefix in reversed(inside):  # the innermost first
                if dotted.startswith(prefix):
                    dotted = prefix.removesuffix("module.") + dotted.removeprefix(prefix)
            return _WRAPPED.sub("", dotted).removesuffix(".")

        return plain

    def _inside_parallel(self) -> list[str]:
        """Return what names inside data-parallel wrappers begin with."""
        if not self.has(PARALLEL):
            return []
        return [
            f"{name}.module." if name else "module."
            for name, module in self.model.named_modules(remove_duplicate=False)
            if isinstance(module, PARALLEL)
        ]


def walk_of(model: Module) -> Walk:
    """Return the walk over a model that `one_walk` keeps, or else a new one."""
    current = _current.get()
    return current if current is not None and current.model is model else Walk(model)


@contextmanager
def one_walk(model: Module) -> Iterator[None]:
    """Have everything inside look at the model once; nothing inside may change it."""
    token = _current.set(walk_of(model))
    try:
        yield
    finally:
        _current.reset(token)
