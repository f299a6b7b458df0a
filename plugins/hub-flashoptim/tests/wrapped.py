"""The FlashOptim names and flashoptim's classes, as they run on a CPU."""

import warnings
from functools import partial

import flashoptim
import pytest
import torch

from hub.testing.upstream import Wrapped, by_file, small_model

ROWS = {
    "flash_adamw": (flashoptim.FlashAdamW, {"betas": (0.8, 0.95), "eps": 1e-6}),
    "flash_adam": (flashoptim.FlashAdam, {"betas": (0.8, 0.95), "eps": 1e-6}),
    "flash_sgd": (flashoptim.FlashSGD, {"momentum": 0.8, "dampening": 0.1}),
    "flash_sgdw": (flashoptim.FlashSGDW, {"momentum": 0.8, "nesterov": True}),
    "flash_lion": (flashoptim.FlashLion, {"betas": (0.8, 0.95)}),
}
ON_CPU = {"quantize": False, "fused": False, "master_weight_bits": None}


def quiet(cls, groups, **arguments):
    """Build upstream's class, but for its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cls(groups, **arguments)


WRAPPED = {
    name: Wrapped(
        name,
        cls,
        {"lr": 0.01, "weight_decay": 0.1, **arguments},
        theirs=ON_CPU,
        make=partial(quiet, cls),
    )
    for name, (cls, arguments) in ROWS.items()
}
BF16, FP32 = torch.bfloat16, torch.float32
every_name = pytest.mark.parametrize("name", WRAPPED)
decoupled_names = pytest.mark.parametrize("name", ["flash_adamw", "flash_sgdw", "flash_lion"])
both_dtypes = pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
no_master_weights = pytest.mark.filterwarnings("ignore:.*master_weight_bits=:hub.HubWarning")
"""What a build on CPU turns off is tested where `pytest.warns` says so."""


def build(name, model, **arguments):
    return WRAPPED[name].build(model, **arguments)


def by_hand(name, model, **arguments):
    return WRAPPED[name].by_hand(model, **arguments)


def resumed(name, model, optimizer, **arguments):
    """Return a fresh model and its optimizer, which go on from what the others would save."""
    fresh = small_model().to(next(model.parameters()))
    again = build(name, fresh, **arguments)
    by_file((model, optimizer), (fresh, again))
    return fresh, again


def halving(optimizer):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]
