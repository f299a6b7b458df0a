"""The training and evaluation weights of one optimizer: which are in place, and how to switch."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch

from hub.measuring import local_part
from hub.running.buckets.offload import state_on_device
from hub.running.buckets.rounding import BITS, ROUNDED, fp32_copy, write
from hub.running.steps import only

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor
    from torch.optim import Optimizer

    StateDict = dict[str, Any]

TRAIN_MODE_KEY = "train_mode"
"""The key of a group in which schedulefree 1.4.1 keeps its mode."""
TRAINING_WEIGHTS_KEY = "trained"
"""The key of a parameter's saved state that holds its training weights."""


class Weights:
    """Puts the training or the evaluation weights of one optimizer's parameters in place.

    Args:
        optimizer: Has `train()` and `eval()`, which may be called for a subset of its parameters.
            Held weakly.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = weakref.ref(optimizer)
        self._is_training = True
        """Used if the groups do not have `TRAIN_MODE_KEY`."""
        self._kept: dict[Tensor, Tensor] = {}
        """The training weights, while the evaluation weights are in place."""
        self._loaded: dict[Tensor, tuple[Tensor, int]] = {}
        """The weights loaded into parameters since the last step, and the versions after that."""
        self._gradients: list[tuple[int, int] | None] = []
        """The gradients present when the evaluation weights were put in place."""
        self._groups: list[int] = []
        """The identities of the groups that `_group_of` was made from."""
        self._group_of: dict[Tensor | None, int] = {}

    @property
    def are_for_training(self) -> bool:
        """Whether the training weights are in place."""
        return bool(self._live().param_groups[0].get(TRAIN_MODE_KEY, self._is_training))

    @property
    def saw_a_backward_pass(self) -> bool:
        """Whether gradients have changed since the evaluation weights were put in place."""
        return not self.are_for_training and self._gradients != self._gradient_versions()

    def has_both(self, parameter: Tensor | None) -> bool:
        """Return whether a parameter has two kinds of weights: it has, once it was stepped."""
        return bool(self._live().state.get(parameter)) and parameter in self._places(parameter)

    def to_evaluation(self) -> None:
        """Put the evaluation weights in place, and keep the training weights."""
        optimizer = self._live()
        # Before the first step both kinds are the same, and switching would leave empty entries in
        # the state of schedulefree 1.4.1.
        if not (self.are_for_training and optimizer.state):
            return
        self._gradients = self._gradient_versions()
        stepped = [p for p in self._parameters() if self.has_both(p)]
        self._kept = {parameter: parameter.detach().clone() for parameter in stepped}
        with torch.no_grad():
            for parameter in stepped:
                self._convert("eval", parameter, parameter)
        with only(optimizer, self._groups_of({})):  # for what else upstream's method does
            type(optimizer).eval(optimizer)
        self._set_mode(is_training=False)

    def to_training(self) -> None:
        """Put the training weights back in place."""
        optimizer = self._live()
        if self.are_for_training:
            return
        kept, self._kept = self._kept, {}
        for parameter in self._parameters():
            if self.has_both(parameter):
                self._restore(parameter, kept.get(parameter))
        with only(optimizer, self._groups_of({})):  # for what else upstream's method does
            type(optimizer).train(optimizer)
        self._set_mode(is_training=True)

    def for_evaluation(self, parameter: Tensor) -> Tensor:
        """Return a copy of a parameter's evaluation weights, whichever kind is in place."""
        if self.are_for_training and self.has_both(parameter):
            return self._evaluation_of(parameter, parameter)
        return parameter.detach().clone()

    def keep_before_load(self, parameters: Iterable[Tensor]) -> None:
        """Keep the training weights of parameters that are about to be loaded."""
        if self.are_for_training:
            self._kept.update({p: p.detach().clone() for p in parameters if self.has_both(p)})

    def restore_after_load(self, parameters: Iterable[Tensor]) -> None:
        """Restore training weights after a load, with the loaded ones as evaluation weights."""
        if self.are_for_training:
            for parameter in parameters:
                if parameter in self._kept:
                    loaded = parameter.detach().clone()
                    self._restore(parameter, self._kept.pop(parameter))
                    self._loaded[parameter] = loaded, parameter._version  # noqa: SLF001

    def export(self, state_dict: StateDict) -> StateDict:
        """Return an optimizer's state dict, changed to match the evaluation weights."""
        groups = self._live().param_groups
        parameters = dict(enumerate(p for group in groups for p in group["params"]))
        in_place = self.are_for_training
        trained = {
            key: (p if in_place else self._kept[p]).detach().clone()
            for key, p in parameters.items()
            if self.has_both(p) and (in_place or p in self._kept)
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
        """Forget the loaded weights: no state to match them will be loaded."""
        self._loaded.clear()

    @torch.no_grad()
    def adopt_state(self) -> None:
        """Move the training weights out of the state that was loaded into the optimizer.

        Weights that were loaded before the state are put back as loaded, because
        `restore_after_load` interpreted them with the state that this one replaces.
        """
        for parameter, (loaded, version) in self._loaded.items():
            if parameter._version == version:  # noqa: SLF001
                parameter.copy_(loaded)
        self.forget_loaded()
        self._kept = {
            # With `rounding`, torch has cast it to fp32, and with `offload` it is on the host.
            parameter: state.pop(TRAINING_WEIGHTS_KEY).to(parameter)
            for parameter, state in self._live().state.items()
            if TRAINING_WEIGHTS_KEY in state
        }
        self._is_training = not self._kept
        self._gradients = self._gradient_versions()

    def match_state(self) -> bool:
        """Return whether the weights in place belong to the training weights of the state."""
        return all(self._is_unmodified(p, kept) for p, kept in self._kept.items())

    @torch.no_grad()
    def _restore(self, parameter: Tensor, kept: Tensor | None) -> None:
        """Replace a parameter's evaluation weights by its training weights.

        Upstream's `train()` recomputes the training weights and rounds, so restore the exact copy
        that `to_evaluation` kept. That copy is stale if the evaluation weights were modified
        meanwhile, for example averaged or pruned, and such a change must survive. Version counters
        miss writes through `.data` and by some kernels, so compare the weights themselves with the
        evaluation weights of the copy. Recomputing these is deterministic; storing them would take
        a third copy of the weights.
        """
        if kept is None or not self._is_unmodified(parameter, kept):
            self._convert("train", parameter, parameter)
        elif not _equal(parameter, kept):
            parameter.copy_(kept)

    def _is_unmodified(self, parameter: Tensor, kept: Tensor) -> bool:
        """Return whether a parameter equals the kept weights or their evaluation, bit for bit."""
        return _equal(parameter, kept) or _equal(parameter, self._evaluation_of(parameter, kept))

    @torch.no_grad()
    def _evaluation_of(self, parameter: Tensor, trained: Tensor) -> Tensor:
        """Return the evaluation weights that belong to these training weights of a parameter."""
        return self._convert("eval", parameter, trained.detach().clone())

    def _convert(self, method: str, parameter: Tensor, weights: Tensor) -> Tensor:
        """Convert one parameter's weights in place by `train` or `eval` of the optimizer's class.

        The method is called on a stand-in, because another thread may step the optimizer meanwhile.
        With `rounding`, an fp32 copy is converted; the bits that are kept belong to the training
        weights.
        """
        optimizer = self._live()
        state = state_on_device(optimizer, parameter, weights.device)
        bits = state.pop(BITS, None)  # with `rounding`; `state` is a copy then
        is_rounded = optimizer.hub_stepping.rounding and weights.dtype in ROUNDED
        copy = fp32_copy(weights, bits if method == "eval" else None) if is_rounded else weights
        stand_in = object.__new__(type(optimizer))
        groups = self._groups_of({parameter: copy}, is_training=method == "eval")
        vars(stand_in).update({**vars(optimizer), "param_groups": groups, "state": {copy: state}})
        getattr(type(optimizer), method)(stand_in)
        if is_rounded:
            write(copy, weights, bits if method == "train" else None)
        return weights

    def _groups_of(
        self, stand_ins: dict[Tensor, Tensor], *, is_training: bool | None = None
    ) -> list[dict[str, Any]]:
        """Return copies of the groups that hold these tensors in place of their parameters.

        Args:
            stand_ins: The tensor to use for each parameter; other parameters are left out.
            is_training: The mode to write into the groups; None keeps it.
        """
        whole = self._live().param_groups
        groups = [{**group, "params": []} for group in whole]
        for parameter, tensor in stand_ins.items():
            groups[self._places(parameter)[parameter]]["params"].append(tensor)
        for group in groups:
            if is_training is not None and TRAIN_MODE_KEY in group:
                group[TRAIN_MODE_KEY] = is_training
        return groups

    def _places(self, parameter: Tensor | None) -> dict[Tensor | None, int]:
        """Return the index of each parameter's group, updated if groups or this one are new."""
        groups = self._live().param_groups
        found = [id(group) for group in groups]
        if found != self._groups or parameter not in self._group_of:
            self._group_of = {
                p: index for index, group in enumerate(groups) for p in group["params"]
            }
            self._groups = found
        return self._group_of

    def _set_mode(self, *, is_training: bool) -> None:
        self._is_training = is_training
        for group in self._live().param_groups:
            if TRAIN_MODE_KEY in group:
                group[TRAIN_MODE_KEY] = is_training

    def _parameters(self) -> list[Tensor]:
        return [p for group in self._live().param_groups for p in group["params"]]

    def _gradient_versions(self) -> list[tuple[int, int] | None]:
        """Return each gradient's identity and version: a backward pass changes one of them."""
        grads = [p.grad for p in self._parameters()]
        return [None if g is None else (id(g), g._version) for g in grads]  # noqa: SLF001

    def _live(self) -> Any:
        return self._optimizer()


def _equal(one: Tensor, other: Tensor) -> bool:
    """Return whether this rank's parts of two tensors are equal."""
    return torch.equal(local_part(one), local_part(other))
