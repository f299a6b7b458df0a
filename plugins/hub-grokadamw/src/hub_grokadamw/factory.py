"""Fixes for the GrokAdamW of grokadamw 0.1.2."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import grokadamw

from hub.errors import CheckpointError, HubError
from hub.updates.stepping import StepWithClosure
from hub_grokadamw.update import update

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Group = dict[str, Any]


class GrokAdamW(StepWithClosure, grokadamw.GrokAdamW):  # type: ignore[misc]  # untyped
    """The algorithm of grokadamw 0.1.2, with state where torch looks for it.

    Upstream's step (`grokadamw/grokadamw.py`) keeps state in the groups, keyed by the parameters,
    where no checkpoint finds it again. It moves state between devices in every step, warns in every
    step on CPU, and counts only parameters with a gradient when it derives each one's beta. This
    one does its operations in the same order, so it rounds alike; see `hub_grokadamw.update`.
    """

    _places: Mapping[str, int] = {}
    """The place of each parameter in its group, by name, at the time of the build."""

    def _update_all(self) -> None:
        """Update each parameter that has a gradient.

        Raises:
            HubError: A grokking signal is not a number. Nothing has moved then, nor has it when a
                signal function raises.
        """
        rates = self._slow_rates()
        for group, rate in zip(self.param_groups, rates, strict=True):
            self._place(group)
            chosen = [parameter for parameter in group["params"] if parameter.grad is not None]
            update(group, chosen, [self.state[parameter] for parameter in chosen], rate)

    def add_param_group(self, param_group: Group) -> None:
        """Add a group, whose parameters have their places in it from now on."""
        super().add_param_group(param_group)
        names = self.param_groups[-1].get("param_names", ())
        self._places = {**self._places, **{name: place for place, name in enumerate(names)}}

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

    def _place(self, group: Group) -> None:
        """Keep each parameter's place from the first step on, for any other order to find it."""
        names = group.get("param_names", ())
        for index, parameter in enumerate(group["params"]):
            if "place" not in self.state[parameter]:
                # A step may be for some parameters of the group only.
                place = self._places[names[index]] if names else index
                self.state[parameter]["place"] = place


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
