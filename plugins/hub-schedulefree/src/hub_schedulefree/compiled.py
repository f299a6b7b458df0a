"""AdamWScheduleFree with an update that torch.compile fuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import schedulefree
import torch

from hub.updates.kernel import Kernel
from hub.updates.stepping import StepWithClosure

if TYPE_CHECKING:
    from torch import Tensor

    Group = dict[str, Any]


class CompiledAdamW(StepWithClosure, schedulefree.AdamWScheduleFree):  # type: ignore[misc]
    """schedulefree's class, with one compiled kernel instead of ten operations.

    Computes as `adamw_schedulefree.py` (schedulefree 1.4.1), whose numbers change in every step and
    would be constants of a kernel. The gradients stay as they are.
    """

    def step(self, closure: Any = None) -> Any:
        """Update the weights; see the upstream class, whose errors it raises."""
        if not self.param_groups[0]["train_mode"]:
            return schedulefree.AdamWScheduleFree.step(self)  # raises
        return super().step(closure)

    def _update_all(self) -> None:
        for group in self.param_groups:
            numbers = _advanced(group)
            lists = self._lists(group)
            if lists[0]:
                UPDATE(lists, numbers)

    def _lists(self, group: Group) -> list[list[Tensor]]:
        """Return the parameters to update, what is averaged, second moments, and gradients."""
        active = [p for p in group["params"] if p.grad is not None]
        for p in active:
            state = self.state[p]
            if "z" not in state:
                state["z"] = torch.clone(p, memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(p, memory_format=torch.preserve_format)
        states = [self.state[p] for p in active]
        return [
            active,
            [state["z"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [p.grad for p in active],
        ]


def _advanced(group: Group) -> tuple[float, ...]:
    """Count a step of the group, and return the numbers of its update."""
    done, warmup, (beta1, beta2) = group["k"], group["warmup_steps"], group["betas"]
    lr = group["lr"] * (min(1.0, (done + 1) / warmup) if warmup else 1.0)
    group["scheduled_lr"] = lr
    group["lr_max"] = max(lr, group["lr_max"])
    weight = (done + 1) ** group["r"] * group["lr_max"] ** group["weight_lr_power"]
    group["weight_sum"] += weight
    group["k"] = done + 1
    share = weight / group["weight_sum"] if group["weight_sum"] else 0.0
    return (
        beta2,
        1 - beta2,
        1 - beta2 ** (done + 1),
        group["eps"],
        group["weight_decay"],
        share,
        lr * (beta1 * (1 - share) - 1),
        lr,
    )


def _step(
    y: Tensor,
    z: Tensor,
    square: Tensor,
    grad: Tensor,
    beta2: Tensor,
    new2: Tensor,
    correction: Tensor,
    eps: Tensor,
    decay: Tensor,
    share: Tensor,
    along: Tensor,
    lr: Tensor,
) -> None:
    square.mul_(beta2).add_(new2 * grad * grad)
    update = grad / ((square / correction).sqrt() + eps) + decay * y
    y.add_(share * (z - y) + along * update)
    z.sub_(lr * update)


UPDATE = Kernel(_step, changes=3)
