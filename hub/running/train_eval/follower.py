"""Track the mode of a model, and put the weights of that mode in place."""

from __future__ import annotations

import sys
import warnings
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from hub.errors import HubWarning
from hub.groups.modules import without_wrappers
from hub.running.steps import members_of
from hub.running.train_eval.hooks import BeforeForward, Followed, Hook, place_train
from hub.running.train_eval.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch.optim import Optimizer

    StateDict = dict[str, Any]


class Follower:
    """Makes the weights of an optimizer's parameters follow the mode of their model.

    The mode changes through `train()` and `eval()`, or by setting `training` directly. The former
    switch the weights immediately, the latter in the next forward pass of a module that owns a
    trained parameter. The root's flag decides: the model's, or that of each child of a container,
    because a container itself is never called. Submodules that stay in evaluation mode, such as
    frozen normalization, switch nothing.

    Args:
        optimizer: Held weakly.
        model: The model that it trains; held weakly.
    """

    def __init__(self, optimizer: Optimizer, model: nn.Module) -> None:
        self.weights = Weights(optimizer)
        self.followed = Followed()
        self.held_by_context = False
        """Whether a `holding_evaluation_weights` block decides instead of the model."""
        self._optimizer = weakref.ref(optimizer)
        self._roots = [weakref.ref(root) for root in roots(without_wrappers(model))]
        self._owners: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self._groups = 0
        self._shared: tuple[Any, Any] = (lambda: None, {})
        self._unrelated: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._removers: list[Callable[[], None]] = []
        self._place_on_roots()
        self._place_on_owners()
        self._place_on_optimizer(optimizer)
        weakref.finalize(self, _remove, self._removers).atexit = False

    def remove(self) -> None:
        """Remove every hook from the model and the optimizer."""
        _remove(self._removers)

    def sync_with_model(self, training: bool) -> None:
        """Put the weights of a mode in place, unless a context holds the evaluation weights."""
        if self.held_by_context:
            return
        if training:
            self.weights.to_training()
        else:
            self.weights.to_evaluation()
        self.followed.mode = self.weights.are_for_training
        self._reshard()

    @contextmanager
    def holding_evaluation_weights(self) -> Iterator[None]:
        """Keep the evaluation weights in place for a block, even if modes change inside it."""
        was, before = self.weights.are_for_training, self._flags()
        self.sync_with_model(training=False)
        self.held_by_context = True
        try:
            yield
        finally:
            self.held_by_context = False
            after = self._flags()
            self.sync_with_model(was if after == before else any(after))

    def export(self, state_dict: StateDict) -> StateDict:
        """Return the optimizer's state dict, changed to match the evaluation weights."""
        return self.weights.export(state_dict)

    def save(self, module: nn.Module, state_dict: StateDict, prefix: str, _: object) -> None:
        """Put copies of the evaluation weights of a module's parameters into its state dict.

        Tied weights, which share memory, share it in the copies too.
        """
        if self._shared[0]() is not state_dict:
            self._shared = _reference(state_dict), weakref.WeakValueDictionary()
        for name, parameter in module._parameters.items():  # noqa: SLF001
            key = prefix + name
            if parameter is None or not self.weights.has_both(parameter):
                continue
            if state_dict.get(key) is not parameter:  # as with `keep_vars=True`
                copy = self._shared[1].get(id(parameter))
                if copy is None:
                    copy = self.weights.for_evaluation(parameter)
                    self._shared[1][id(parameter)] = copy
                state_dict[key] = copy

    def before_load(self, module: nn.Module, *_: object) -> None:
        """Keep the training weights that loading evaluation weights is about to overwrite."""
        self.weights.keep_before_load(module._parameters.values())  # type: ignore[arg-type]  # noqa: SLF001

    def after_load(self, module: nn.Module, *_: object) -> None:
        """Treat the loaded weights as evaluation weights."""
        self.weights.restore_after_load(module._parameters.values())  # type: ignore[arg-type]  # noqa: SLF001

    def after_root_load(self, root: nn.Module, *_: object) -> None:
        """Sync with a root that was just loaded, perhaps after its optimizer."""
        if self.followed.mode is None:
            self.sync_with_model(root.training)

    def before_step(self, *_: object) -> None:
        """Step with the training weights, and follow modules added since the last step."""
        self.weights.forget_loaded()
        if len(self._live().param_groups) != self._groups:
            self._place_on_owners()
        if self.followed.mode is False and all(self._flags()):  # set directly, no forward pass yet
            self.followed.mode = True
        if self.weights.saw_a_backward_pass:
            warnings.warn(
                "the gradients of this step belong to the evaluation weights, which were in place "
                "during the backward pass; call model.train() before the forward pass",
                HubWarning,
                stacklevel=5,
            )
        self.weights.to_training()

    def after_step(self, *_: object) -> None:
        """Put the evaluation weights back if they were in place before the step."""
        if self.held_by_context or self.followed.mode is False:
            self.weights.to_evaluation()

    def after_load_of_state(self, _: object) -> None:
        """Adopt a loaded state; its evaluation weights may be loaded before or after it."""
        self.weights.adopt_state()
        self.followed.mode = None
        if self.weights.match_state():
            self.sync_with_model(all(self._flags()))

    def before_any_step(self, stepping: Any, *_: object) -> None:
        """Release the model if another optimizer begins to step its parameters."""
        own = self._live()
        if stepping is own or own is None or stepping in self._unrelated:
            return
        theirs = {id(p) for group in stepping.param_groups for p in group["params"]}
        # As SAM does, and an optimizer of several.
        wraps = any(value is own for value in (*vars(stepping).values(), *members_of(stepping)))
        if wraps or not any(id(p) in theirs for group in own.param_groups for p in group["params"]):
            self._unrelated.add(stepping)
            return
        self.remove()
        warnings.warn(
            f"{type(stepping).__name__} steps parameters that {type(own).__name__} still switches; "
            f"{type(own).__name__} has released the model, which continues from the "
            f"{'training' if self.weights.are_for_training else 'evaluation'} weights. Call "
            "model.eval() and hub.detach(model) before another optimizer takes over",
            HubWarning,
            stacklevel=4,
        )

    def _place_on_roots(self) -> None:
        for root in self._live_roots():
            self._removers += [
                place_train(self, root),
                root.register_load_state_dict_post_hook(Hook(self, root, "after_root_load")).remove,  # type: ignore[no-untyped-call]
            ]

    def _place_on_owners(self) -> None:
        """Place hooks on the modules that own a trained parameter, unless they have them."""
        optimizer = self._live()
        trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self._groups = len(optimizer.param_groups)
        for root in self._live_roots():
            for module in root.modules():
                owned = module._parameters.values()  # noqa: SLF001
                if module not in self._owners and any(id(p) in trained for p in owned):
                    self._owners.add(module)
                    self._removers += [handle.remove for handle in self._on_owner(module, root)]

    def _on_owner(self, module: nn.Module, root: nn.Module) -> list[Any]:
        return [
            # First, because FSDP2 gathers the weights in its own hook.
            module.register_forward_pre_hook(BeforeForward(self, module, root), prepend=True),
            module.register_state_dict_post_hook(Hook(self, module, "save")),  # type: ignore[no-untyped-call]
            module.register_load_state_dict_pre_hook(Hook(self, module, "before_load")),  # type: ignore[no-untyped-call]
            module.register_load_state_dict_post_hook(Hook(self, module, "after_load")),  # type: ignore[no-untyped-call]
        ]

    def _place_on_optimizer(self, optimizer: Optimizer) -> None:
        handles = [
            optimizer.register_step_pre_hook(_weakly_bound(self.before_step)),
            optimizer.register_step_post_hook(_weakly_bound(self.after_step)),
            optimizer.register_state_dict_post_hook(_export_hook(self)),
            optimizer.register_load_state_dict_post_hook(_weakly_bound(self.after_load_of_state)),
            register_optimizer_step_pre_hook(_weakly_bound(self.before_any_step)),
        ]
        self._removers += [handle.remove for handle in handles]

    def _flags(self) -> list[bool]:
        return [root.training for root in self._live_roots()]

    def _reshard(self) -> None:
        """Make FSDP2 gather the weights again; it keeps its root's after a forward pass."""
        fsdp: Any = sys.modules.get("torch.distributed.fsdp")
        for root in self._live_roots() if fsdp else ():
            for module in root.modules():
                if isinstance(module, fsdp.FSDPModule):
                    module.reshard()

    def _live_roots(self) -> list[nn.Module]:
        found = (reference() for reference in self._roots)
        return [root for root in found if root is not None]

    def _live(self) -> Any:
        return self._optimizer()


def roots(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules whose mode decides: the model, or the children of a container."""
    if not isinstance(model, nn.ModuleList | nn.ModuleDict):
        yield model
        return
    for child in model.children():
        yield from roots(child)


def _remove(removers: list[Callable[[], None]]) -> None:
    while removers:
        removers.pop()()


def _weakly_bound(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a hook that calls a method while its object lives; a no-op while compiling."""
    reference = weakref.WeakMethod(method)

    def hook(*arguments: Any) -> None:
        if torch.compiler.is_compiling():
            return
        live = reference()
        if live is not None:
            live(*arguments)

    return hook


def _export_hook(follower: Follower) -> Callable[[Any, StateDict], StateDict]:
    reference = weakref.ref(follower)

    def exported(_: Any, state_dict: StateDict) -> StateDict:
        live = reference()
        return state_dict if live is None else live.export(state_dict)

    return exported


def _reference(state_dict: StateDict) -> Callable[[], Any]:
    """Return a weak reference to a state dict, or for a plain dict a function that returns None."""
    try:
        return weakref.ref(state_dict)
    except TypeError:
        return lambda: None
