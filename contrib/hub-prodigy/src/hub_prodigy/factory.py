"""Fixes for the Prodigy of prodigyopt 1.1.2."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import prodigyopt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import Tensor

OF_ALL = ("lr", "d", "d_max", "d_numerator", "d_denom", "d_hat", "k")
"""What all groups have in common, which changes while it trains."""


class Prodigy(prodigyopt.Prodigy):  # type: ignore[misc]  # untyped
    """Upstream's class and step, with everything that a step writes there from the start.

    Upstream's step (`prodigyopt/prodigy.py`) adds keys to the groups, so that a new optimizer does
    not have what a checkpoint of torch's distributed functions holds.
    """

    param_groups: list[dict[str, Any]]
    defaults: dict[str, Any]

    def __init__(self, params: Iterable[Any], weight_decay: float = 0.0, **arguments: Any) -> None:
        super().__init__(list(params), **arguments)  # prints where it is given a weight decay
        self.defaults |= {"weight_decay": weight_decay, "d_denom": 0.0, "d_hat": self.d0}
        for group in self.param_groups:
            for key in ("d_denom", "d_hat"):
                group.setdefault(key, self.defaults[key])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, which continues at the learning rate and the estimate of the others."""
        for others in self.param_groups[:1]:
            common = {key: others[key] for key in OF_ALL if key in others}
            param_group = {**common, **param_group}
        super().add_param_group(param_group)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; `closure`, if any, reevaluates the model and returns the loss."""
        loss = None if closure is None else closure()
        with self._gradients_kept():
            super().step()
        return loss

    @contextmanager
    def _gradients_kept(self) -> Iterator[None]:
        """Let upstream add weight decay to copies of the gradients, where it adds it to them."""
        kept: list[tuple[Any, Tensor]] = []
        for group in self.param_groups:
            if group["weight_decay"] and not group["decouple"]:
                kept += [(p, p.grad) for p in group["params"] if p.grad is not None]
        for parameter, gradient in kept:
            parameter.grad = gradient.clone()
        try:
            yield
        finally:
            for parameter, gradient in kept:
                parameter.grad = gradient
