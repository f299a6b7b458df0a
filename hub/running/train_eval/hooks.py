"""The hooks that a follower places on a model's modules.

Each holds its module and its follower weakly, and does nothing for other modules: shallow copies of
a module, as DataParallel makes them, share its hooks. In a deep copy or a pickle, a hook becomes a
function that does nothing and loads without hub.
"""

from __future__ import annotations

import sys
import weakref
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import torch

from hub.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


class Follows(Protocol):
    """What the hooks call; implemented by `follower.Follower`."""

    followed: Followed

    def sync_with_model(self, training: bool) -> None:
        """Put the weights of a mode in place."""


class Hook:
    """Calls a method of a follower with the module and the arguments that torch passes."""

    def __init__(self, follower: Any, module: nn.Module, method: str) -> None:
        self._follower = weakref.ref(follower)
        self._module = weakref.ref(module)
        self._method = method

    def __call__(self, module: nn.Module, *arguments: Any) -> None:
        """The hook."""
        follower = self._follower()
        if follower is not None and module is self._module():
            getattr(follower, self._method)(module, *arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        # A callable from the standard library that accepts any arguments and returns None.
        return getattr, (nullcontext(), "__exit__")


class Followed:
    """The mode whose weights are in place; None if it has to be looked up again.

    A separate object that `torch.compile` can guard on: a graph compiled while the right weights
    were in place contains nothing of hub, and is not used when they are not.
    """

    def __init__(self) -> None:
        self.mode: bool | None = True


class BeforeForward(Hook):
    """Detects, in a forward pass of a submodule, that `root.training` was set directly.

    Lightning 2.6 sets it after a validation (`utilities/model_helpers.py`, `_ModuleMode.restore`).
    """

    def __init__(self, follower: Follows, module: nn.Module, root: nn.Module) -> None:
        super().__init__(follower, module, "sync_with_model")
        self._followed = follower.followed
        self._root = weakref.ref(root)

    def __call__(self, module: nn.Module, *_: Any) -> None:
        """The hook."""
        root = self._root()
        if root is None or root.training is self._followed.mode or module is not self._module():
            return
        if _is_recording():
            raise UnsupportedError(
                "model.training was set directly, and the weights of that mode are not in place: "
                "they cannot be switched while a graph is recorded",
                where="torch.export, torch.jit.trace",
                fix=f"call model.{'train' if root.training else 'eval'}() before recording",
            )
        _outside_of_graphs(self._follow)()

    def _follow(self) -> None:
        follower, root = self._follower(), self._root()
        if follower is not None and root is not None:
            follower.sync_with_model(root.training)


class Train:
    """Replaces `module.train` of one module, so that the weights follow immediately.

    `module.eval()` and a parent's `train()` and `eval()` call it. One instance serves all followers
    of the module.
    """

    def __init__(self, module: nn.Module) -> None:
        self.followers: weakref.WeakSet[Follows] = weakref.WeakSet()
        self._module = weakref.ref(module)
        self._before = vars(module).get("train")

    def __call__(self, mode: bool = True) -> nn.Module:
        """Set the module's mode, and put the weights of that mode in place."""
        module: Any = self._module()
        train = self._before or type(module).train.__get__(module)
        result: nn.Module = train(mode)
        for follower in self.followers:
            follower.sync_with_model(module.training)
        return result

    def remove(self, follower: Follows | None) -> None:
        """Remove a follower; after the last one, restore the module's own `train`.

        If `module.train` has been replaced again since, this object stays and does nothing.
        """
        if follower is not None:
            self.followers.discard(follower)
        module = self._module()
        followed = any(True for _ in self.followers)  # len() counts dead references
        if followed or module is None or vars(module).get("train") is not self:
            return
        del vars(module)["train"]
        if self._before is not None:
            vars(module)["train"] = self._before

    def __reduce__(self) -> tuple[Any, ...]:
        # The copied module's own `train`; the module exists before its attributes do.
        return getattr, (self._module(), "train")


def place_train(follower: Follows, module: nn.Module) -> Callable[[], None]:
    """Make a follower follow a module's `train()` and `eval()`; return a function that ends it."""
    train = vars(module).get("train")
    if not isinstance(train, Train):
        train = vars(module)["train"] = Train(module)
    train.followers.add(follower)
    # A dead follower has left the set, and its removal may still be the last.
    reference = weakref.ref(follower)
    return lambda: train.remove(reference())


def _is_recording() -> bool:
    """Return whether `torch.export` or `torch.jit.trace` records; `torch.compile` can break out."""
    if torch.compiler.is_dynamo_compiling():
        return False
    tracing: Any = torch.jit  # untyped in torch 2.13
    return torch.compiler.is_compiling() or bool(tracing.is_tracing())


def _outside_of_graphs(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that `torch.compile`, if it is in use, does not trace."""
    if "torch._dynamo" not in sys.modules:  # importing it takes a second
        return function
    disabled: Callable[..., Any] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    return disabled
