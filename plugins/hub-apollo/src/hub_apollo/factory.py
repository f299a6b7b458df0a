"""The APOLLOAdamW of apollo_torch 1.0.3, fixed, for parameters of equal shape at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from apollo_torch import APOLLOAdamW as UpstreamAPOLLOAdamW

from hub.repairs import translate_state
from hub.updates.low_rank import (
    NumbersLowRank,
    project,
    refresh_bases,
    side_of,
    stacked_bases,
)
from hub.updates.same_shapes import InBuckets, adam_move, adam_quotient, norms, start
from hub.updates.stacking import each
from hub_apollo.arguments import LowRankArguments
from hub_apollo.random_bases import refresh_random_bases
from hub_apollo.saved import live_state, plain_state

if TYPE_CHECKING:
    from torch import Tensor

    from hub.updates.same_shapes import Bucket

    Group = dict[str, Any]
    State = dict[str, Any]

_GROWTH = 1.01
"""The factor by which the norm of an update may grow in a step."""
_LIMITED = "scaled_grad"
"""The key of the state that has the norm of the last update."""


class APOLLOAdamW(InBuckets, NumbersLowRank, UpstreamAPOLLOAdamW):  # type: ignore[misc]  # untyped
    """Upstream's class (apollo.py), with seeds that follow from the names of the parameters.

    apollo_torch 1.0.3 numbers the parameters that its constructor sees. Those that come later have
    no seed and fail, optimizers over one parameter each all have the seed 1, and another order of
    the groups gives other projections.

    Operations and their order are upstream's, for parameters of equal shape at once, so that
    weights are equal to the last bit where torch rounds stacked tensors as single ones; see
    `hub.updates.same_shapes`. The limiter of norms does not wait for the device.
    """

    scale_front: bool
    disable_nl: bool

    def __init__(self, params: list[Group], **arguments: Any) -> None:
        """Build as upstream does, without its seeds.

        Args:
            params: Groups with `param_names`. Those with `rank` have all keys that go with it.
            arguments: Of upstream's constructor.
        """
        super().__init__(params, **arguments)
        # Torch's distributed checkpoints would take the seeds for an initialized optimizer, and
        # then load nothing else from disk.
        self.state.clear()
        translate_state(self, plain_state, live_state)

    def __getstate__(self) -> State:
        """Add what upstream keeps outside groups and state, so that copies have it."""
        attributes = {"scale_front": self.scale_front, "disable_nl": self.disable_nl}
        return {**super().__getstate__(), **attributes}

    def __setstate__(self, state: State) -> None:
        """Restore a copy, or take over what `load_state_dict` has read."""
        is_new = "_optimizer_step_pre_hooks" not in vars(self)
        super().__setstate__(state)
        if is_new:
            translate_state(self, plain_state, live_state)

    def add_param_group(self, param_group: Group) -> None:
        """Add a group. What one with `rank` leaves out comes from the first such group."""
        if "rank" in param_group:
            first: Group = next((group for group in self.param_groups if "rank" in group), {})
            for key in LowRankArguments.model_fields:
                if key in first:
                    param_group.setdefault(key, first[key])
        super().add_param_group(param_group)

    def _update(self, bucket: Bucket) -> None:
        is_low_rank = "rank" in bucket.group
        gradient = self._projected(bucket) if is_low_rank else bucket.gradient
        start(bucket, "exp_avg", gradient)
        start(bucket, "exp_avg_sq", gradient)
        update = adam_quotient(bucket, gradient)
        if is_low_rank:
            update = self._scaled(bucket, _factors(bucket, update, gradient))
        adam_move(bucket, update)

    def _projected(self, bucket: Bucket) -> Tensor:
        """Return the gradients in the coordinates of their bases, new ones if they are due."""
        side = side_of(bucket.shape, bucket.group["proj_type"])
        if bucket.group["proj"] == "random":
            refresh_random_bases(bucket, side, self.low_rank_numbers)
        else:
            refresh_bases(bucket, side, self.low_rank_numbers)
        return project(bucket.gradient, stacked_bases(bucket, side), side)

    def _scaled(self, bucket: Bucket, factors: Tensor) -> Tensor:
        """Return the gradients times their factors, with a norm that grows by 1 % at most."""
        scaled: Tensor = bucket.gradient * factors
        scale = math.sqrt(bucket.group["scale"])
        if self.scale_front:
            scaled *= scale
        if not self.disable_nl:
            scaled = _limited(bucket, scaled)
        if not self.scale_front:
            scaled *= scale
        return scaled


def _factors(bucket: Bucket, update: Tensor, gradient: Tensor) -> Tensor:
    """Return what AdamW makes of the norm of each channel, or of all, in low rank."""
    if bucket.group["scale_type"] == "tensor":
        factors: Tensor = each(norms(update) / (norms(gradient) + 1e-8), update)
        return factors
    rows, columns = bucket.shape
    projected = 1 if rows < columns else 2
    return _lengths(update, projected) / (_lengths(gradient, projected) + 1e-8)


def _lengths(stack: Tensor, dim: int) -> Tensor:
    """Return the norms along one dimension, which is kept, as `torch.norm` rounds them.

    On CPUs its kernel (torch 2.13) takes thirty times as long along rows as this sum, which adds in
    the same order. The root is taken in fp64, because `torch.sqrt` does not round fp32 correctly.
    """
    if dim != 1 or stack.device.type != "cpu" or stack.dtype is torch.float64:
        found: Tensor = torch.norm(stack, dim=dim, keepdim=True)
        return found
    total, *others = stack.float().square().unbind(1)
    for other in others:
        total.add_(other)
    lengths: Tensor = total.double().sqrt().float().to(stack.dtype).unsqueeze(1)
    return lengths


def _limited(bucket: Bucket, scaled: Tensor) -> Tensor:
    """Return updates that grow by 1 % at most, and remember their norms.

    A norm of zero is remembered as infinity, which limits nothing: upstream lets it grow by 1 % a
    step from 1e-8. One gradient of zeros, such as the first one below a zero-initialized layer,
    thus stops a weight for nearly two thousand steps.
    """
    sizes = norms(scaled)
    if _LIMITED in bucket.states[0]:
        growth = sizes / (torch.stack(bucket.column(_LIMITED)) + 1e-8)
        limits = torch.where(growth < _GROWTH, torch.ones_like(growth), growth / _GROWTH)
        scaled.div_(each(limits, scaled))
        sizes = sizes / limits
    sizes = sizes.masked_fill(sizes == 0, torch.inf)
    copies: Any = torch.unbind_copy(sizes)  # type: ignore[func-returns-value] # torch 2.13's stub
    for state, size in zip(bucket.states, copies, strict=True):
        state[_LIMITED] = size
    return scaled
