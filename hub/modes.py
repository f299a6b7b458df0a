"""Optimizers with other weights for evaluation than for training: ScheduleFree.

Such an optimizer has `train()` and `eval()`, which nobody calls in a trainer that does not know it.
So the model's own mode switches: its next forward pass in evaluation mode sees the averaged
weights, its next one in training mode goes on with the others. State dicts, of the model as of the
optimizer, hold the averaged weights, as one wants to evaluate and export them.

Upstream computes one kind of weights from the other, and rounds. Here the training weights are kept
while the others are in place, and saved with the optimizer, so that neither evaluations nor
checkpoints leave a trace in the training.
"""

from __future__ import annotations

import sys
import warnings
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hub.errors import HubWarning
from hub.stepping import closure_of, only
from hub.wrappers import unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor
    from torch.optim import Optimizer
    from torch.utils.hooks import RemovableHandle

    StateDict = dict[str, Any]

FLAG = "train_mode"
"""The key of a group where schedulefree 1.4.1 keeps its mode."""
TRAINED = "trained"
"""The key of a parameter's saved state that has its training weights."""


class Modes:
    """Switches one optimizer with the model that it trains.

    Args:
        optimizer: Has `train()` and `eval()`, which may be called for some of its parameters.
        model: Its mode decides.
    """

    def __init__(self, optimizer: Optimizer, model: nn.Module) -> None:
        self._optimizer = weakref.ref(optimizer)
        self._model = weakref.ref(model)
        self._is_training = True
        """Where the groups do not say it."""
        self._kept: dict[Tensor, Tensor] = {}
        """The training weights while the others are in place."""
        self.is_pinned = False
        """Whether `eval_mode` decides, and not the model."""
        self._saw_evaluation = False
        """Whether the last forward pass saw the evaluation weights."""
        self.handles = self._place_hooks(optimizer, model)

    @property
    def is_training(self) -> bool:
        """Whether the training weights are in place."""
        return bool(self._live().param_groups[0].get(FLAG, self._is_training))

    def to_evaluation(self) -> None:
        """Put the evaluation weights in place, and keep the others."""
        optimizer = self._live()
        # Before the first step there is one kind of weights only, and switching would leave empty
        # entries in the state of schedulefree 1.4.1.
        if not (self.is_training and optimizer.state):
            return
        self._kept = {parameter: parameter.detach().clone() for parameter in optimizer.state}
        type(optimizer).eval(optimizer)
        self._is_training = False

    def to_training(self) -> None:
        """Put the training weights back in place, unless somebody has changed those that are."""
        optimizer = self._live()
        if self.is_training:
            return
        kept, self._kept = self._kept, {}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                with only(optimizer, [{**group, "params": [parameter]}]):
                    self._restore(parameter, kept.get(parameter))
        _say_training(optimizer)
        self._is_training = True

    @torch.no_grad()
    def _restore(self, parameter: Tensor, kept: Tensor | None) -> None:
        """Turn one parameter, alone in the optimizer, to its training weights."""
        optimizer = self._live()
        shown = parameter.detach().clone()
        if kept is not None and not torch.equal(shown, kept):
            parameter.copy_(kept)
            _say_training(optimizer)
            type(optimizer).eval(optimizer)
            if not torch.equal(parameter, shown):  # other weights have been loaded since
                parameter.copy_(shown)
                kept = None
        if kept is None:
            type(optimizer).train(optimizer)
        else:
            parameter.copy_(kept)

    def follow(self) -> None:
        """Switch to the mode that the model is in, before a forward pass."""
        model = self._model()
        if model is None or self.is_pinned:
            return
        self._saw_evaluation = not model.training
        if model.training:
            self.to_training()
        else:
            self.to_evaluation()

    def _place_hooks(self, optimizer: Optimizer, model: nn.Module) -> list[RemovableHandle]:
        reference = weakref.ref(self)
        entrances = dict.fromkeys(_entrances(model))

        def to_evaluation(module: nn.Module) -> _Hook:
            return _Hook(reference, module, "to_evaluation")

        return [
            *(m.register_forward_pre_hook(_Hook(reference, m, "follow")) for m in entrances),
            # What is saved are the evaluation weights, and so is what is loaded.
            *(m.register_state_dict_pre_hook(to_evaluation(m)) for m in entrances),  # type: ignore[no-untyped-call]
            *(m.register_load_state_dict_pre_hook(to_evaluation(m)) for m in entrances),  # type: ignore[no-untyped-call]
            optimizer.register_step_pre_hook(self._of(Modes._before_step)),
            optimizer.register_load_state_dict_post_hook(self._of(Modes._take_loaded)),
        ]

    def _of(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return a hook of the optimizer that does not keep this alive."""
        reference = weakref.ref(self)

        def hook(*arguments: Any) -> Any:
            live = reference()
            return None if live is None else method(live, *arguments)

        return hook

    def _before_step(self, _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        has_closure = closure_of(args, kwargs) is not None
        if not self.is_training and self._saw_evaluation and not has_closure:
            warnings.warn(
                "the gradients of this step are those of the evaluation weights: the last forward "
                "pass was in evaluation mode; call model.train() before it",
                HubWarning,
                stacklevel=5,
            )
        self.to_training()

    def export(self, state_dict: StateDict) -> StateDict:
        """Return a state dict that goes with the evaluation weights."""
        optimizer = self._live()
        self.to_evaluation()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        state = {
            key: {**value, TRAINED: self._kept[parameters[key]]}
            if isinstance(key, int) and parameters[key] in self._kept
            else value
            for key, value in state_dict["state"].items()
        }
        groups = [
            {**saved, FLAG: group[FLAG]} if FLAG in group else saved
            for saved, group in zip(state_dict["param_groups"], optimizer.param_groups, strict=True)
        ]
        return {**state_dict, "state": state, "param_groups": groups}

    def _take_loaded(self, optimizer: Optimizer) -> None:
        self._kept = {
            parameter: state.pop(TRAINED)
            for parameter, state in optimizer.state.items()
            if TRAINED in state
        }
        self._is_training = not self._kept

    def _live(self) -> Any:
        return self._optimizer()


def attach(optimizer: Optimizer, model: nn.Module) -> None:
    """Let an optimizer switch with the model's mode.

    Its own `train()` and `eval()` then keep the training weights too; Transformers' Trainer (5.23)
    calls them.
    """
    modes = Modes(optimizer, model)
    optimizer.hub_modes = modes  # type: ignore[attr-defined]
    optimizer.train, optimizer.eval = modes.to_training, modes.to_evaluation  # type: ignore[attr-defined]

    def exported(live: Any, state_dict: StateDict) -> StateDict:
        own: Modes | None = getattr(live, "hub_modes", None)
        return state_dict if own is None else own.export(state_dict)

    optimizer.register_state_dict_post_hook(exported)


def detach(optimizer: Optimizer) -> None:
    """Leave an optimizer's modes to its own `train()` and `eval()`.

    State dicts stay as they are: without that, checkpoints would change their form.
    """
    modes: Modes | None = getattr(optimizer, "hub_modes", None)
    if modes is None:
        return
    for handle in modes.handles:
        handle.remove()
    modes.handles.clear()
    for method in ("train", "eval"):
        vars(optimizer).pop(method, None)


class _Hook:
    """A hook on a module; a copy of the module, pickled or deep, has one that does nothing."""

    def __init__(
        self, modes: Callable[[], Modes | None], module: nn.Module | None, method: str
    ) -> None:
        self._modes = modes
        self._module = (lambda: None) if module is None else weakref.ref(module)
        self._method = method

    def __call__(self, module: nn.Module, *_: object) -> None:
        modes = self._modes()
        if modes is None or module is not self._module():
            return
        method = getattr(modes, self._method)
        if "torch._dynamo" in sys.modules:  # whoever compiles has it; importing it takes a second
            method = torch.compiler.disable(method)  # type: ignore[no-untyped-call]
        method()

    def __reduce__(self) -> tuple[Any, ...]:
        return _inert, ()


def _inert() -> _Hook:
    return _Hook(lambda: None, None, "")


@contextmanager
def eval_mode(optimizer: Optimizer) -> Iterator[None]:
    """Give the model its evaluation weights inside the block.

    For optimizers that train and evaluate with different weights (ScheduleFree); for all others it
    does nothing. Not needed where the model's `train()` and `eval()` are called, as they switch an
    optimizer that hub built. Wrappers that keep the optimizer in `.optimizer`, as Accelerate's
    does, are seen through.
    """
    inner = unwrapped(optimizer)
    modes: Modes | None = getattr(inner, "hub_modes", None)
    if modes is None or not modes.is_training:
        yield
        return
    modes.to_evaluation()
    modes.is_pinned = True
    try:
        yield
    finally:
        modes.is_pinned = False
        modes.to_training()


def _say_training(optimizer: Any) -> None:
    for group in optimizer.param_groups:
        if FLAG in group:
            group[FLAG] = True


def _entrances(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules whose call begins a forward pass of the model.

    That is the model, unless it is a container, which is not called, or a Lightning module, whose
    `training_step` is called and calls what it likes. Then it is each of its children too. Not
    always, since a hook on a part would cut the graph of a compiled model in pieces.
    """
    yield model
    if isinstance(model, nn.ModuleList | nn.ModuleDict) or hasattr(model, "training_step"):
        for child in model.children():
            yield from _entrances(child)
