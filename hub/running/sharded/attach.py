"""Connect an optimizer to its sharded parameters, whenever they are sharded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from hub.running.sharded.conducted import make_conducted
from hub.running.sharded.meshes import is_sharded

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.utils.hooks import RemovableHandle

    from hub.running.buckets.stepping import Stepping
    from hub.running.sharded.late import LateSharding
    from hub.saving.plain import StateDict


def step_eagerly(optimizer: Optimizer, late: LateSharding, stepping: Stepping) -> None:
    """Make an optimizer step the parameters that its model has by then.

    Call it before other step hooks, which have to see these parameters.
    """
    if stepping.in_buckets or (late.members.may_exist and _may_be_sharded()):
        make_conducted(optimizer, late, stepping)
    settle_before_step(optimizer, late)


def stay_conducted(optimizer: Optimizer, stepping: Stepping) -> None:
    """Let hub step an optimizer eagerly that stepped inside the backward pass, where it has to."""
    late: LateSharding = vars(optimizer)["hub_late_sharding"]
    if late.members or stepping.in_buckets:
        make_conducted(optimizer, late, stepping)


def settle_before_step(optimizer: Optimizer, late: LateSharding) -> None:
    """Make the first step decide which parameters there are."""
    handles: list[RemovableHandle] = []

    def settle(optimizer: Optimizer, *_: Any) -> None:
        late.settle(for_good=True)
        # Not removed here, because torch iterates over all hooks. The post-hook is the last one.
        if len(handles) == 1:
            handles.append(optimizer.register_step_post_hook(remove))

    def remove(*_: Any) -> None:
        for handle in handles:
            handle.remove()

    handles.append(optimizer.register_step_pre_hook(settle))


def save_sharded(optimizer: Optimizer, late: LateSharding) -> None:
    """Make an optimizer save and load the state of the parameters that its model has by then.

    Call it after other state dict hooks, except for those that sign and align.
    """

    def export_state(optimizer: Optimizer, state_dict: StateDict) -> StateDict:
        if not _has_sharded(optimizer):
            return state_dict
        from hub.running.sharded import state  # imports DTensors, which takes a while

        return state.export_state(optimizer, late.members, state_dict)

    def import_state(optimizer: Optimizer, state_dict: StateDict) -> StateDict:
        late.settle()
        if not _has_sharded(optimizer):
            return state_dict
        from hub.running.sharded import state

        return state.import_state(optimizer, late.members, state_dict)

    optimizer.register_state_dict_pre_hook(lambda _: late.settle())
    optimizer.register_state_dict_post_hook(export_state)
    optimizer.register_load_state_dict_pre_hook(import_state, prepend=True)
    optimizer.register_load_state_dict_post_hook(lambda _: late.touch_state())


def _may_be_sharded() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _has_sharded(optimizer: Optimizer) -> bool:
    return any(is_sharded(p) for group in optimizer.param_groups for p in group["params"])
