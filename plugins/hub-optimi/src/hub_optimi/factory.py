"""Fixes for the StableAdamW of optimi 0.3.3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import optimi
import torch
from optimi.stableadamw import stableadamw
from optimi.utils import _default_to_triton

from hub.quiet import no_warnings
from hub.updates.stepping import StepWithClosure
from hub_optimi.update import LOW_PRECISION, update

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    Group = dict[str, Any]

_IN_THE_PLAN = "Parameter `foreach` is deprecated|You are using weight_decay up to"
_IMPLEMENTATION = ("triton", "foreach")
_LISTS = (
    "params",
    "grads",
    "exp_avgs",
    "exp_avg_sqs",
    "eps_sqs",
    "kahan_comps",
    "mean_squares",
)
_SETTINGS = (
    "lr",
    "beta1",
    "beta2",
    "weight_decay",
    "eps",
    "step",
    "decouple_lr",
    "max_lr",
    "kahan_sum",
)


class StableAdamW(StepWithClosure, optimi.StableAdamW):  # type: ignore[misc]  # untyped
    """Upstream's class, on any device, with the betas and decay of its groups.

    - `group["triton"]` is decided from all parameters of the group, at its first step. Upstream
      (`optimi/stableadamw.py`, `_init_group`) decides from a list that it has not filled yet: for
      triton, wherever that can be imported.
    - Loading a state dict keeps the implementation that this object was built with, and fits the
      state to it. Upstream takes the implementation that the saving process chose. `eps_sq` follows
      from the group's `eps`, also where a trainer has saved state in fp16.
    - `group["betas"]` is followed, as torch's schedulers write it.
    - With `decouple_lr`, the decay of a group with its own learning rate is relative to the maximum
      of that rate; upstream (`optimi/optimizer.py`) divides by the optimizer's.
    - Without triton, small tensors are updated together, and gradients are left alone; see
      `hub_optimi.update`.
    """

    def __init__(self, params: list[Group], lr: float, **arguments: Any) -> None:
        # What upstream warns of when it is built, the plan says.
        with no_warnings(message=_IN_THE_PLAN):
            super().__init__(params, lr, **arguments)
        self.defaults["betas"] = (self.defaults["beta1"], self.defaults["beta2"])

    def add_param_group(self, param_group: Group) -> None:
        """Add a group, filling in what upstream would take from the optimizer's own values."""
        group = dict(param_group)
        if "betas" in group:
            group["beta1"], group["beta2"] = group["betas"]
        decoupled = group.get("decouple_lr", self.defaults["decouple_lr"])
        if decoupled and "lr" in group and group.get("max_lr") is None:
            group["max_lr"] = self._max_lr(group["lr"])
        super().add_param_group(group)
        _add_betas(self.param_groups[-1])

    def _update_all(self) -> None:
        for group in self.param_groups:
            lists: dict[str, list[Any]] = {name: [] for name in _LISTS}
            self._init_group(group, **lists)
            if group["triton"]:
                settings = {key: group[key] for key in _SETTINGS}
                stableadamw(**lists, **settings, triton=True)
            else:
                update(group, lists)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with the implementation that was asked for, not the one chosen."""
        saved: dict[str, Any] = super().state_dict()
        for group in saved["param_groups"]:  # torch has copied them
            group.update(self._asked())
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load moments and settings, but not the implementation of the process that saved them."""
        groups = [
            {key: value for key, value in group.items() if key not in _IMPLEMENTATION}
            for group in state_dict["param_groups"]
        ]
        for group in groups:
            _add_betas(group)
        super().load_state_dict({**state_dict, "param_groups": groups})
        for group in self.param_groups:
            if "step" in group:  # upstream reads it by `.item()`, which would wait for a GPU
                group["step"] = group["step"].cpu()
            self._restore_eps(group)
            if any(group[key] is not None for key in _IMPLEMENTATION):
                self._fit_state(group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # torch calls this from `load_state_dict` too, before any load hook looks at the groups.
        super().__setstate__(state)
        for group in self.param_groups:
            group.update(self._asked())

    def _init_group(self, group: Group, **lists: list[Any]) -> None:
        group["beta1"], group["beta2"] = group["betas"]
        if all(group[key] is None for key in _IMPLEMENTATION):
            group["triton"] = _triton_serves(group["params"])
            self._fit_state(group)
        if group["kahan_sum"] is None and any(p.dtype in LOW_PRECISION for p in group["params"]):
            group["kahan_sum"] = True  # upstream waits for a gradient, which may be on other ranks
        super()._init_group(group, **lists)

    def _asked(self) -> dict[str, bool | None]:
        return {key: self.defaults[key] for key in _IMPLEMENTATION}

    def _max_lr(self, lr: float) -> float:
        """Return the maximum learning rate of a group that starts from this one; never 0."""
        base, largest = self.defaults["lr"], self.defaults["max_lr"]
        own = lr if largest in (base, None) else largest * lr / base if base else largest
        return own or largest or base

    def _restore_eps(self, group: Group) -> None:
        """Compute `eps_sq` again: 1e-12 is 0 in a checkpoint that has state in fp16."""
        for parameter in group["params"]:
            state = self.state.get(parameter, {})
            if "eps_sq" in state:
                state["eps_sq"] = torch.full_like(state["eps_sq"], group["eps"] ** 2)

    def _fit_state(self, group: Group) -> None:
        """Give loaded state the tensors that the implementation and the weights' dtype need."""
        for parameter in group["params"]:
            state = self.state.get(parameter, {})
            if "kahan_comp" not in state:
                continue
            if parameter.dtype in LOW_PRECISION and group["kahan_sum"] is not False:
                group["kahan_sum"] = True
                kept = state["kahan_comp"]
                if kept is None or kept.shape != parameter.shape:
                    state["kahan_comp"] = torch.zeros_like(parameter)
            else:
                state["kahan_comp"] = _scratch(parameter, torch.uint8) if group["triton"] else None
            if group["triton"]:
                state["mean_square"] = _scratch(parameter, torch.float32)


def _add_betas(group: Group) -> None:
    """Add `betas` to a group that has only upstream's names for them."""
    if "betas" not in group and "beta1" in group:
        group["betas"] = (group["beta1"], group["beta2"])


def _triton_serves(parameters: Sequence[Tensor]) -> bool:
    """Whether upstream's kernels, which compute in fp32, can and should update these."""
    is_exact = all(parameter.dtype != torch.float64 for parameter in parameters)
    return bool(parameters) and is_exact and _default_to_triton(parameters)


def _scratch(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(1, dtype=dtype, device=parameter.device)
