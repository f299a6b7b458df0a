"""Builds schedulefree's optimizers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import schedulefree
import torch

if TYPE_CHECKING:
    from torch.optim import Optimizer

CLASSES: dict[str, type[Optimizer]] = {
    "schedule_free_adamw": schedulefree.AdamWScheduleFree,
    "schedule_free_radam": schedulefree.RAdamScheduleFree,
    "schedule_free_sgd": schedulefree.SGDScheduleFree,
}


def build(name: str, groups: list[dict[str, Any]], arguments: dict[str, Any]) -> Optimizer:
    """Return upstream's own class, in train mode.

    The mode is written, not switched to by `train()`: with schedulefree 1.4.1 that call leaves an
    empty state entry for every parameter, which torch's distributed checkpoints take for an
    initialised optimizer. Before the first step both do the same to the weights: nothing.
    """
    optimizer = CLASSES[name](groups, **arguments)
    for group in optimizer.param_groups:
        group["train_mode"] = True
    # A group added later takes its mode from here. Upstream's False would have it stepped all the
    # same and its weights moved at the next `train()`; without state, True moves nothing.
    optimizer.defaults["train_mode"] = True
    optimizer.register_step_pre_hook(_ready)
    return optimizer


def _ready(optimizer: Any, _args: object, _kwargs: object) -> None:
    """Make learning rates numbers, before the step.

    Of one of 0 that is a tensor schedulefree 1.4.1 makes weights that are not finite: the division
    by zero that it catches is one of Python's numbers.
    """
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"] = group["lr"].item()
