"""What following a model's mode places on its modules.

Each holds the module and its follower weakly, and does nothing for any other module: shallow copies
of a module, as DataParallel makes of them, share its hooks. What a deep copy or a pickle gets in
their place does nothing either, and needs no hub to be loaded.
"""

from __future__ import annotations

import sys
import weakref
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from hub.modes.following import Follower


class Hook:
    """Calls a method of a follower with one module and whatever torch calls the hook with."""

    def __init__(self, follower: Follower, module: nn.Module, method: str) -> None:
        self._follower = weakref.ref(follower)
        self._module = weakref.ref(module)
        self._method = method

    def __call__(self, module: nn.Module, *arguments: Any) -> None:
        """Be the hook."""
        follower = self._follower()
        if follower is not None and module is self._module():
            getattr(follower, self._method)(module, *arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        # A callable of the standard library that takes any arguments and returns None.
        return getattr, (nullcontext(), "__exit__")


class BeforeForward(Hook):
    """Notices, in a forward pass of a part of a model, that somebody has set `root.training`.

    Lightning 2.6 does so after a validation (`utilities/model_helpers.py`, `_ModuleMode.restore`).
    Not while a graph is recorded, of which it must not become a part.
    """

    def __init__(self, follower: Follower, module: nn.Module, root: nn.Module) -> None:
        super().__init__(follower, module, "follow")
        self._root = weakref.ref(root)

    def __call__(self, module: nn.Module, *_: Any) -> None:
        """Be the hook."""
        if _is_recording():
            return
        follower, root = self._follower(), self._root()
        if follower is None or root is None or root.training is follower.followed:
            return
        if module is self._module():
            _outside_of_graphs(follower.follow)(root.training)


class Train:
    """Stands for `module.train` of one module: the weights follow at once.

    `module.eval()` and a parent's `train()` and `eval()` call it.
    """

    def __init__(self, follower: Follower, module: nn.Module) -> None:
        self._follower = weakref.ref(follower)
        self._module = weakref.ref(module)
        self._before = vars(module).get("train")
        vars(module)["train"] = self

    def __call__(self, mode: bool = True) -> nn.Module:
        """Set the module's mode, and put the weights of that mode in place."""
        module: Any = self._module()
        train = self._before or type(module).train.__get__(module)
        result: nn.Module = train(mode)
        follower = self._follower()
        if follower is not None:
            follower.follow(module.training)
        return result

    def remove(self) -> None:
        """Give the module its own `train` back; under a later wrapper this one does nothing."""
        self._follower = lambda: None  # type: ignore[assignment]
        module = self._module()
        if module is None or vars(module).get("train") is not self:
            return
        if self._before is None:
            del vars(module)["train"]
        else:
            vars(module)["train"] = self._before

    def __reduce__(self) -> tuple[Any, ...]:
        # The copied module's own; it exists before its attributes do.
        return getattr, (self._module(), "train")


def _is_recording() -> bool:
    tracing: Any = torch.jit  # untyped in torch 2.13
    return torch.compiler.is_compiling() or bool(tracing.is_tracing())


def _outside_of_graphs(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that torch.compile does not look into, where it is in use."""
    if "torch._dynamo" not in sys.modules:  # importing it takes a second
        return function
    disabled: Callable[..., Any] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    return disabled
