"""The two kinds of weights that one optimizer has: which are in place, and how they change."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch

from hub.running.steps import only

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor
    from torch.optim import Optimizer

    StateDict = dict[str, Any]

TRAIN_MODE_KEY = "train_mode"
"""The key of a group where schedulefree 1.4.1 keeps its mode."""
TRAINING_WEIGHTS_KEY = "trained"
"""The key of a parameter's saved state that has its training weights."""


class Weights:
    """Puts the weights of one optimizer's parameters in place for training or for evaluation.

    Args:
        optimizer: Has `train()` and `eval()`, which may be called for some of its parameters. Not
            kept alive.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = weakref.ref(optimizer)
        self._is_training = True
        """Where the groups do not say it."""
        self._kept: dict[Tensor, Tensor] = {}
        """The training weights while the others are in place."""
        self._loaded: dict[Tensor, tuple[Tensor, int]] = {}
        """What was loaded into parameters since the last step, and their versions after that."""
        self._gradients: list[tuple[int, int] | None] = []
        """The gradients that were there when the evaluation weights were put in place."""
        self._groups: list[int] = []
        """The groups, by identity, that `_group_of` is of."""
        self._group_of: dict[Tensor, int] = {}

    @property
    def are_for_training(self) -> bool:
        """Whether the training weights are in place."""
        return bool(self._live().param_groups[0].get(TRAIN_MODE_KEY, self._is_training))

    @property
    def saw_a_backward_pass(self) -> bool:
        """Whether gradients have come since the evaluation weights were put in place."""
        return not self.are_for_training and self._gradients != self._present_gradients()

    def has(self, parameter: Tensor | None) -> bool:
        """Whether a parameter has two kinds of weights, as it has once it was stepped."""
        return parameter in self._places() and bool(self._live().state.get(parameter))

    def to_evaluation(self) -> None:
        """Put the evaluation weights in place, and keep the others."""
        optimizer = self._live()
        # Before the first step there is one kind of weights only, and switching would leave empty
        # entries in the state of schedulefree 1.4.1.
        if not (self.are_for_training and optimizer.state):
            return
        self._gradients = self._present_gradients()
        stepped = [p for p in self._parameters() if self.has(p)]
        self._kept = {parameter: parameter.detach().clone() for parameter in stepped}
        with only(optimizer, self._groups_of({p: p for p in stepped})):
            type(optimizer).eval(optimizer)
        self._mark(is_training=False)

    def to_training(self) -> None:
        """Put the training weights back in place."""
        optimizer = self._live()
        if self.are_for_training:
            return
        kept, self._kept = self._kept, {}
        for parameter in self._parameters():
            if self.has(parameter):
                self._restore(parameter, kept.get(parameter))
        with only(optimizer, self._groups_of({})):  # whatever else it does
            type(optimizer).train(optimizer)
        self._mark(is_training=True)

    def for_evaluation(self, parameter: Tensor) -> Tensor:
        """Return a copy of a parameter's evaluation weights, whichever are in place."""
        if self.are_for_training and self.has(parameter):
            return self._evaluation_of(parameter, parameter)
        return parameter.detach().clone()

    def keep(self, parameters: Iterable[Tensor]) -> None:
        """Keep the training weights of some parameters, which are about to be loaded."""
        if self.are_for_training:
            self._kept.update({p: p.detach().clone() for p in parameters if self.has(p)})

    def take(self, parameters: Iterable[Tensor]) -> None:
        """Take what was loaded into some parameters as their evaluation weights."""
        if self.are_for_training:
            for parameter in parameters:
                if parameter in self._kept:
                    loaded = parameter.detach().clone()
                    self._restore(parameter, self._kept.pop(parameter))
                    self._loaded[parameter] = loaded, parameter._version  # noqa: SLF001

    def export(self, state_dict: StateDict) -> StateDict:
        """Return an optimizer's state dict as one that goes with the evaluation weights."""
        groups = self._live().param_groups
        parameters = dict(enumerate(p for group in groups for p in group["params"]))
        in_place = self.are_for_training
        trained = {
            key: (p if in_place else self._kept[p]).detach().clone()
            for key, p in parameters.items()
            if self.has(p) and (in_place or p in self._kept)
        }
        state = {
            key: {**value, TRAINING_WEIGHTS_KEY: trained[key]} if key in trained else value
            for key, value in state_dict["state"].items()
        }
        saved = [
            {**group, TRAIN_MODE_KEY: False} if trained and TRAIN_MODE_KEY in group else group
            for group in state_dict["param_groups"]
        ]
        return {**state_dict, "state": state, "param_groups": saved}

    def forget_loaded(self) -> None:
        """Forget the weights that were loaded: the state that goes with them is not coming."""
        self._loaded.clear()

    @torch.no_grad()
    def take_state(self) -> None:
        """Take the training weights out of the state that was loaded into the optimizer.

        Weights that were loaded before it are put back as they were: `take` has read them by the
        state that this one replaces.
        """
        for parameter, (loaded, version) in self._loaded.items():
            if parameter._version == version:  # noqa: SLF001
                parameter.copy_(loaded)
        self.forget_loaded()
        self._kept = {
            parameter: state.pop(TRAINING_WEIGHTS_KEY)
            for parameter, state in self._live().state.items()
            if TRAINING_WEIGHTS_KEY in state
        }
        self._is_training = not self._kept
        self._gradients = self._present_gradients()

    def fit_the_state(self) -> bool:
        """Whether those in place are the ones that the training weights were kept of, or these."""
        return all(self._is_known(p, kept) for p, kept in self._kept.items())

    @torch.no_grad()
    def _restore(self, parameter: Tensor, kept: Tensor | None) -> None:
        """Put a parameter's training weights in place, where now are those for evaluation.

        What was kept is right unless somebody has changed those in place.
        """
        if kept is None or not self._is_known(parameter, kept):
            self._turn("train", parameter, parameter)
        elif not _equal(parameter, kept):
            parameter.copy_(kept)

    def _is_known(self, parameter: Tensor, kept: Tensor) -> bool:
        """Whether a parameter is, bit for bit, what was kept or what it is for evaluation."""
        return _equal(parameter, kept) or _equal(parameter, self._evaluation_of(parameter, kept))

    @torch.no_grad()
    def _evaluation_of(self, parameter: Tensor, trained: Tensor) -> Tensor:
        """Return the evaluation weights of a parameter that has these training weights."""
        return self._turn("eval", parameter, trained.detach().clone())

    def _turn(self, method: str, parameter: Tensor, weights: Tensor) -> Tensor:
        """Call a method of the optimizer's class for one parameter's weights, and return them.

        It is called on a twin of the optimizer: another thread may step this one meanwhile.
        """
        optimizer = self._live()
        twin = object.__new__(type(optimizer))
        groups = self._groups_of({parameter: weights}, is_training=method == "eval")
        state = {weights: optimizer.state[parameter]}
        vars(twin).update({**vars(optimizer), "param_groups": groups, "state": state})
        getattr(type(optimizer), method)(twin)
        return weights

    def _groups_of(
        self, stand_ins: dict[Tensor, Tensor], *, is_training: bool | None = None
    ) -> list[dict[str, Any]]:
        """Return the groups with only these parameters, and other tensors in their places.

        Args:
            stand_ins: From parameters to the tensors.
            is_training: What the groups say of their mode; None: what they do.
        """
        whole = self._live().param_groups
        groups = [{**group, "params": []} for group in whole]
        for parameter, tensor in stand_ins.items():
            groups[self._places()[parameter]]["params"].append(tensor)
        for group in groups:
            if is_training is not None and TRAIN_MODE_KEY in group:
                group[TRAIN_MODE_KEY] = is_training
        return groups

    def _places(self) -> dict[Tensor, int]:
        """Return the place of each parameter's group; groups may come, and be taken out."""
        groups = self._live().param_groups
        found = [id(group) for group in groups]
        if found != self._groups:
            self._group_of = {
                p: index for index, group in enumerate(groups) for p in group["params"]
            }
            self._groups = found
        return self._group_of

    def _mark(self, *, is_training: bool) -> None:
        self._is_training = is_training
        for group in self._live().param_groups:
            if TRAIN_MODE_KEY in group:
                group[TRAIN_MODE_KEY] = is_training

    def _parameters(self) -> list[Tensor]:
        return [p for group in self._live().param_groups for p in group["params"]]

    def _present_gradients(self) -> list[tuple[int, int] | None]:
        """Return what changes of each gradient when a backward pass adds to it."""
        grads = [p.grad for p in self._parameters()]
        return [None if g is None else (id(g), g._version) for g in grads]  # noqa: SLF001

    def _live(self) -> Any:
        return self._optimizer()


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether this rank's part of two tensors is the same, bit for bit."""
    return torch.equal(_local(one), _local(other))


def _local(tensor: Any) -> Tensor:
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part
