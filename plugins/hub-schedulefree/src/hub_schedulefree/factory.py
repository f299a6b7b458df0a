"""Builds schedulefree's optimizers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import schedulefree

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
    return optimizer
