"""Signum (Bernstein et al., https://arxiv.org/abs/1802.04434)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.optim.optimizer import ParamsT


class Signum(Optimizer):
    """Move every weight by `lr`, against the sign of its averaged gradient."""

    def __init__(
        self, params: ParamsT, lr: float = 1e-4, momentum: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; a closure computes loss and gradients first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["average"] = torch.zeros_like(parameter)
        average = state["average"].lerp_(parameter.grad, 1 - group["momentum"])
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(average.sign(), alpha=-group["lr"])
