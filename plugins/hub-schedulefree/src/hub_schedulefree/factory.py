"""Builds schedulefree's optimizers."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import schedulefree
import torch

from hub.errors import HubWarning

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
    """Mend what would stop the step, or spoil it.

    schedulefree 1.4.1 refuses a step in evaluation mode, which is what a checkpoint that was saved
    in it brings back. And of a learning rate of 0 that is a tensor it makes weights that are not
    finite: the division by zero that it catches is one of Python's numbers.
    """
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"] = group["lr"].item()
    if not optimizer.param_groups[0]["train_mode"]:
        warnings.warn(
            "the optimizer was in evaluation mode, so the gradients of this step are those of the "
            "averaged weights; after loading a checkpoint that was saved in evaluation mode, call "
            "optimizer.train() before the first forward pass",
            HubWarning,
            stacklevel=4,
        )
        optimizer.train()
