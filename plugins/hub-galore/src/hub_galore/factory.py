"""Fixes for the optimizers of galore_torch 1.0, over bitsandbytes 0.50.2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from bitsandbytes.functional import GlobalPageManager
from bitsandbytes.optim.optimizer import GlobalOptimManager, Optimizer2State
from bitsandbytes.utils import sync_gpu
from galore_torch import GaLoreAdamW8bit as UpstreamAdamW8bit

from hub.repairs import HookedLoading, keep_state_dtypes, translate_state
from hub.updates.low_rank import NumbersLowRank
from hub.updates.same_shapes import single
from hub.updates.stepping import StepWithClosure
from hub_galore.projected import Projected
from hub_galore.saved import live_state, plain_state
from hub_galore.stepping import GaLoreAdafactor, GaLoreAdamW

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    Group = dict[str, Any]
    Index = tuple[int, int]  # of a group, and of a parameter in it


def adamw(groups: list[Group], **arguments: Any) -> Optimizer:
    """Return an optimizer whose class warns of its deprecation unless told not to."""
    optimizer = GaLoreAdamW(groups, **arguments, no_deprecation_warning=True)
    translate_state(optimizer, plain_state, live_state)
    return optimizer


def adafactor(groups: list[Group], **arguments: Any) -> Optimizer:
    """Return an optimizer whose state stays in fp32 for bf16 and fp16 weights.

    torch casts it when it loads a state dict.
    """
    optimizer = GaLoreAdafactor(groups, **arguments)
    keep_state_dtypes(optimizer)  # before `translate_state`
    translate_state(optimizer, plain_state, live_state)
    return optimizer


class GaLoreAdamW8bit(StepWithClosure, NumbersLowRank, HookedLoading, UpstreamAdamW8bit):  # type: ignore[misc]  # both untyped
    """The algorithm of galore_torch 1.0 (adamw8bit.py), in which all weights train.

    Upstream's constructor passes arguments by position that bitsandbytes 0.50 takes for others
    (max_unorm=100 and skip_zeros=True), which clip updates with 32-bit state and a zero buffer to
    nothing. Its `step` needs CUDA, swaps the weight and its gradient for projected ones, and
    changes the group while it runs.
    """

    initialized: bool

    def __init__(self, params: list[Group], **arguments: Any) -> None:
        Optimizer2State.__init__(
            self, "adam", params, optim_bits=8, max_unorm=0.0, skip_zeros=False, **arguments
        )
        translate_state(self, plain_state, live_state)

    def _update_all(self) -> None:
        if not self.initialized:  # as in bitsandbytes' own `step`
            self.check_overrides()
            self.to_gpu()
            self.initialized = True
        for gindex, group in enumerate(self.param_groups):
            for pindex, parameter in enumerate(group["params"]):
                if parameter.grad is None:
                    continue
                if "rank" in group:
                    self._update_low_rank(parameter, group, (gindex, pindex))
                else:
                    self._update_plain(parameter, parameter.grad, group, (gindex, pindex))

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs; torch keeps three attributes, and drops bitsandbytes'.

        The managers that all optimizers of bitsandbytes 0.50 share are not copied.
        """
        kept = {key: vars(self)[key] for key in _ATTRIBUTES}
        return {**super().__getstate__(), **kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over loaded or copied state."""
        super().__setstate__(state)
        self.mng = GlobalOptimManager.get_instance()
        self.page_mng = GlobalPageManager.get_instance()

    def _update_low_rank(self, parameter: Tensor, group: Group, at: Index) -> None:
        """Project, take AdamW's step from zero, project it back and add it; then decay."""
        bucket = single(self, group, at[1])
        projected = Projected(bucket, self.low_rank_numbers)
        low_rank_grad = bucket.gradient[0]
        update = torch.zeros_like(low_rank_grad)
        no_decay = {**group, "weight_decay": 0.0}
        self._update_stand_in(parameter, update, low_rank_grad, no_decay, at)
        parameter.add_(projected.back(update.unsqueeze(0))[0])
        if group["weight_decay"] > 0:
            parameter.add_(parameter, alpha=-group["lr"] * group["weight_decay"])

    def _update_plain(self, parameter: Tensor, grad: Tensor, group: Group, at: Index) -> None:
        """Take AdamW's step on the parameter itself."""
        if parameter.is_contiguous() and grad.is_contiguous():
            self._update_state(parameter, group, at)
            return
        # `update_step` of bitsandbytes 0.50.2 would move both to other storage.
        updated = parameter.detach().clone(memory_format=torch.contiguous_format)
        self._update_stand_in(parameter, updated, grad, group, at)
        parameter.copy_(updated)

    def _update_stand_in(
        self, parameter: Tensor, stand_in: Tensor, grad: Tensor, group: Group, at: Index
    ) -> None:
        """Update another tensor, in place, with the parameter's state."""
        stand_in.grad = grad
        self.state[stand_in] = self.state[parameter]
        try:
            self._update_state(stand_in, group, at)
        finally:
            del self.state[stand_in]

    def _update_state(self, tensor: Tensor, group: Group, at: Index) -> None:
        if "state1" not in self.state[tensor]:
            self.init_state(group, tensor, *at)
        self.update_step(group, tensor, *at)
        sync_gpu(tensor)  # as bitsandbytes does: its CUDA kernels are given no stream


_ATTRIBUTES = (
    "initialized",
    "name2qmap",
    "is_paged",
    "non_castable_tensor_keys",
    "args",
    "optimizer_name",
)
