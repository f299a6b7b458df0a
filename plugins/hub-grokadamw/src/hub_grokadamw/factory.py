"""Fixes for the GrokAdamW of grokadamw 0.1.2."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import grokadamw
import torch
from torch.nn.utils import get_total_norm

from hub.errors import CheckpointError, HubError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Group = dict[str, Any]


class GrokAdamW(grokadamw.GrokAdamW):  # type: ignore[misc]  # untyped
    """The algorithm of grokadamw 0.1.2, with state where torch looks for it.

    Upstream's step (`grokadamw/grokadamw.py`) keeps state in the groups, keyed by the parameters,
    where no checkpoint finds it again. It moves state between devices in every step, warns in every
    step on CPU, and counts only parameters with a gradient when it derives each one's beta. This
    one does its operations in the same order, so it rounds alike.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; `closure`, if any, reevaluates the model and returns the loss.

        Raises:
            HubError: A grokking signal is not a number. Nothing has moved then, nor has it when a
                signal function raises.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        rates = self._slow_rates()
        for group, rate in zip(self.param_groups, rates, strict=True):
            for place, parameter in enumerate(group["params"]):
                # Kept from the first step on, for a checkpoint to find it in any other order.
                self.state[parameter].setdefault("place", place)
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group, rate)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load, and keep the signal functions of the groups, which no checkpoint has.

        Raises:
            CheckpointError: The upstream class saved it, so that its state cannot be found again.
        """
        if any("state" in group for group in state_dict["param_groups"]):
            raise CheckpointError(
                "a checkpoint of the upstream class keys its state by parameters that are gone",
                where="load_state_dict of grokadamw",
                fix="load the model's weights, and start without optimizer state",
                plugin="hub-grokadamw",
            )
        kept = [group["grokking_signal_fns"] for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, functions in zip(self.param_groups, kept, strict=True):
            group["grokking_signal_fns"] = functions

    def _slow_rates(self) -> list[float]:
        """Return each group's decay rate of the slow average, calling shared functions once."""
        asked: dict[int, float | None] = {}
        rates = []
        for group in self.param_groups:
            functions = group["grokking_signal_fns"]
            if functions is None:
                signal = self._compute_grokking_signal(group)
            else:
                if id(functions) not in asked:
                    asked[id(functions)] = _mean(functions)
                signal = asked[id(functions)]
            rates.append(_slow_rate(group, signal))
        return rates

    def _update(self, parameter: Tensor, grad: Tensor, group: Group, rate: float) -> None:
        """Add the slow average to the gradient, take AdamW's step with it, and decay."""
        state = self.state[parameter]
        if "step" not in state:
            state["step"] = 0
            for key in ("exp_avg", "exp_avg_sq", "grok_ema"):
                state[key] = torch.zeros_like(parameter)
        state["step"] += 1
        mean, square, slow = state["exp_avg"], state["exp_avg_sq"], state["grok_ema"]
        lr, (beta1, beta2) = group["lr"], group["betas"]

        grad = _clipped(grad, group["gradient_clipping"])
        slow.mul_(rate).add_(grad, alpha=1 - rate)
        grad = grad + group["lamb"] * slow

        own_beta1 = beta1 * (1 - group["gamma"]) ** state["place"]
        mean.mul_(own_beta1).add_(grad, alpha=1 - own_beta1)
        square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)

        size = lr * math.sqrt(1 - beta2 ** state["step"]) / (1 - beta1 ** state["step"])
        parameter.mul_(1 - lr * group["weight_decay"])
        parameter.addcdiv_(mean, square.sqrt().add_(group["eps"]), value=-size)


def _mean(functions: list[Callable[[], float | None]]) -> float | None:
    signals = [signal for signal in (function() for function in functions) if signal is not None]
    return sum(signals) / len(signals) if signals else None


def _slow_rate(group: Group, signal: float | None) -> float:
    """Return the decay rate at this signal, at most 1: above it the average would diverge."""
    rate: float = group["alpha_init"]
    if signal is None:
        return rate
    if math.isnan(signal):
        raise HubError(
            "the grokking signal is not a number",
            where="step of grokadamw",
            fix="check grokking_signal_fns: a function may return None to abstain",
            plugin="hub-grokadamw",
        )
    return min(1.0, rate * math.exp(-group["grokking_signal_decay_rate"] * signal))


def _clipped(grad: Tensor, limit: float) -> Tensor:
    """Return the gradient with a norm of at most `limit`, as `clip_grad_norm_` would make it."""
    if limit <= 0:
        return grad
    return grad * (limit / (get_total_norm([grad]) + 1e-6)).clamp(max=1.0)
