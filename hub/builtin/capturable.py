"""Learning rates for steps that a CUDA graph repeats.

A graph repeats kernels, with the numbers they were captured with. It reads tensors anew, so a
schedule reaches it by tensors that are changed in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch

from hub.builtin.learning_rates import read_rates, write_rate

if TYPE_CHECKING:
    from torch.optim import Optimizer

    Group = dict[str, Any]

AnyOptimizer = TypeVar("AnyOptimizer", bound="Optimizer")


def rmsprop(groups: list[Group], **arguments: Any) -> torch.optim.RMSprop:
    """Return torch's RMSprop."""
    return with_rate_tensors(torch.optim.RMSprop(groups, **arguments))


def with_rate_tensors(optimizer: AnyOptimizer) -> AnyOptimizer:
    """Make the learning rates of an optimizer tensors if its step is `capturable`.

    They stay the same tensors, also when a state dict is loaded. State dicts have numbers.
    """
    if not optimizer.defaults["capturable"]:
        return optimizer
    for group in optimizer.param_groups:
        device = group["params"][0].device if group["params"] else None
        group["lr"] = torch.tensor(float(group["lr"]), dtype=torch.float32, device=device)
    tensors: list[Any] = []

    def before(optimizer: Optimizer, _: object) -> None:
        tensors[:] = [group["lr"] for group in optimizer.param_groups]

    def after(optimizer: Optimizer) -> None:
        for group, tensor in zip(optimizer.param_groups, tensors, strict=True):
            loaded = float(group["lr"])
            group["lr"] = tensor
            write_rate(group, loaded)
        tensors.clear()

    optimizer.register_load_state_dict_pre_hook(before)
    optimizer.register_load_state_dict_post_hook(after)
    optimizer.register_state_dict_post_hook(_with_numbers)
    return optimizer


def _with_numbers(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    rates = read_rates(optimizer)
    groups = [
        {**group, "lr": float(rate)}
        for group, rate in zip(state_dict["param_groups"], rates, strict=True)
    ]
    return {**state_dict, "param_groups": groups}
