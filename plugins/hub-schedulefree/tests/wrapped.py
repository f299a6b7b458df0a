"""The Schedule-Free names and schedulefree's classes."""

from functools import partial

import pytest
import schedulefree
import torch

from hub.testing.upstream import Wrapped

ROWS = {
    "schedule_free_adamw": (
        schedulefree.AdamWScheduleFree,
        {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6, "warmup_steps": 3},
    ),
    "schedule_free_radam": (
        schedulefree.RAdamScheduleFree,
        {"lr": 0.01, "betas": (0.8, 0.95), "silent_sgd_phase": False, "r": 0.5},
    ),
    "schedule_free_sgd": (
        schedulefree.SGDScheduleFree,
        {"lr": 0.1, "momentum": 0.8, "foreach": False, "weight_lr_power": 1.0},
    ),
}


def training(cls, groups, **arguments):
    """Build upstream's class in train mode, as hub does."""
    optimizer = cls(groups, **arguments)
    optimizer.train()
    return optimizer


WRAPPED = {
    name: Wrapped(name, cls, {**arguments, "weight_decay": 0.1}, make=partial(training, cls))
    for name, (cls, arguments) in ROWS.items()
}
every_name = pytest.mark.parametrize("name", WRAPPED)
every_dtype = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str
)


def build(name, model):
    return WRAPPED[name].build(model)


def by_hand(name, model):
    return WRAPPED[name].by_hand(model)
