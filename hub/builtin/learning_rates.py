"""The learning rates of an optimizer's groups, as schedules read and write them.

A rate is a number, or a tensor where the step reads it on the device (`capturable`, torchao): that
tensor stays the one it is, as a captured graph or a compiled step holds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from torch.optim import Optimizer


def unshare_rates(optimizer: Optimizer) -> None:
    """Give every group, and the defaults, a tensor of its own.

    torch 2.13 hands one and the same to all groups that name no learning rate. Changed in place
    for one, it changes for all: twice where a rate is lowered group by group, and a group that
    joins later would start from the present rate of the others.
    """
    seen: set[int] = set()
    for holder in (*optimizer.param_groups, optimizer.defaults):
        lr = holder.get("lr")
        if isinstance(lr, Tensor):
            if id(lr) in seen:
                holder["lr"] = lr.clone()
            seen.add(id(lr))


def read_rates(optimizer: Optimizer) -> list[Any]:
    """Return the groups' learning rates, tensors as copies."""
    rates = (group["lr"] for group in optimizer.param_groups)
    return [lr.clone() if isinstance(lr, Tensor) else lr for lr in rates]


def write_rate(group: dict[str, Any], lr: float) -> None:
    """Set a group's learning rate, in place where it is a tensor."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr


def restore_rates(optimizer: Optimizer, before: list[Any], loaded: list[Any]) -> None:
    """Write a schedule's loaded learning rates to the groups that have what it wrote before.

    A group with another has it from the optimizer's own state dict.
    """
    for group, old, new in zip(optimizer.param_groups, before, loaded, strict=False):
        if float(group["lr"]) == float(old):
            write_rate(group, float(new))
