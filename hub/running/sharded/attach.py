"""Connect an optimizer to its sharded parameters, whenever they are sharded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from hub.running.sharded.late import LateSharding
from hub.running.sharded.meshes import is_sharded
from hub.running.sharded.subclass import make_sharded

if TYPE_CHECKING:
    from torch.nn import Module
    from torch.optim import Optimizer

    from hub.plans import Plan
    from hub.saving.plain import StateDict
    from hub.spec import OptimizerSpec


def follow_sharding(
    optimizer: Optimizer, model: Module, plan: Plan, spec: OptimizerSpec
) -> LateSharding:
    """Make an optimizer step, save and load the parameters that its model has by then.

    Call it after the optimizer's other state dict hooks, except for those that sign and align.
    """
    late = LateSharding(optimizer, model, plan, spec)
    if not late.is_native and _may_be_sharded():
        make_sharded(optimizer, late, spec.step_counters)

    def settle_once(*_: Any) -> None:
        late.settle(for_good=True)
        handle.remove()

    optimizer.register_state_dict_pre_hook(lambda _: late.settle())
    optimizer.register_state_dict_post_hook(_translated(late, "export_state"))
    optimizer.register_load_state_dict_pre_hook(_translated(late, "import_state"), prepend=True)
    optimizer.register_load_state_dict_post_hook(lambda _: late.touch_state())
    handle = optimizer.register_step_pre_hook(settle_once)
    return late


def _may_be_sharded() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _translated(late: LateSharding, function: str) -> Any:
    """Return a hook that passes state dicts through a function, if parameters are sharded."""

    def hook(optimizer: Optimizer, state_dict: StateDict) -> StateDict:
        late.settle()
        if not any(is_sharded(p) for group in optimizer.param_groups for p in group["params"]):
            return state_dict
        from hub.running.sharded import state  # imports DTensors, which takes a while

        translated: StateDict = getattr(state, function)(optimizer, late.members, state_dict)
        return translated

    return hook
