"""Read and write the learning rates of an optimizer's groups, for schedules.

A rate is a number, or a tensor if the step reads it on the device (`capturable`, torchao). A tensor
is changed in place and never replaced, because a captured graph or a compiled step refers to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from torch.optim import Optimizer


def unshare_rates(optimizer: Optimizer) -> None:
    """Give every group, and the defaults, a separate tensor.

    torch 2.13 uses one tensor for all groups without a learning rate. Changing it in place for one
    group would change it for all: a schedule that goes from group to group would change it several
    times, and a group that joins later would start from the others' current rate.
    """
    seen: set[int] = set()
    for holder in (*optimizer.param_groups, optimizer.defaults):
        lr = holder.get("lr")
        if isinstance(lr, Tensor):
            if id(lr) in seen:
                holder["lr"] = lr.clone()
            seen.add(id(lr))


def read_rates(optimizer: Optimizer) -> list[Any]:
    """Return the groups' learning rates, with copies of tensors."""
    rates = (group["lr"] for group in optimizer.param_groups)
    return [lr.clone() if isinstance(lr, Tensor) else lr for lr in rates]


def write_rate(group: dict[str, Any], lr: float) -> None:
    """Set a group's learning rate, in place if it is a tensor."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr


def restore_rates(optimizer: Optimizer, before: list[Any], loaded: list[Any]) -> None:
    """Write a schedule's loaded learning rates to the groups that still have its previous ones.

    Any other learning rate was loaded with the optimizer's state dict, and stays.
    """
    for group, old, new in zip(optimizer.param_groups, before, loaded, strict=False):
        if float(group["lr"]) == float(old):
            write_rate(group, float(new))
