"""The torchao names and torchao's classes, over one model."""

from functools import partial

import pytest
import torch
import torchao.optim
from torch import nn
from torchao.optim.subclass_4bit import OptimState4bit
from torchao.optim.subclass_8bit import OptimState8bit

from hub.testing.upstream import Wrapped, small_model, train

QUANTIZED = {"adamw_torch_4bit": OptimState4bit, "adamw_torch_8bit": OptimState8bit}
ARGUMENTS = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-7, "weight_decay": 0.1}
make_model = partial(small_model, widths=(64, 64, 128, 3))
"""Two weights that are quantized, one that is too small, biases and a norm."""
WRAPPED = {
    name: Wrapped(name, cls, ARGUMENTS, model=make_model)
    for name, cls in {
        "adamw_torch_4bit": torchao.optim.AdamW4bit,
        "adamw_torch_8bit": torchao.optim.AdamW8bit,
    }.items()
}
every_name = pytest.mark.parametrize("name", WRAPPED)
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
compiled = pytest.mark.usefixtures("_compiling")
bf16_weights = pytest.mark.filterwarnings("ignore:.*bf16 weights:hub.HubWarning")


class Small(nn.Linear):
    """One quantized weight and one small bias: two kernels to compile."""

    def __init__(self, dtype=torch.float32):
        torch.manual_seed(0)
        super().__init__(64, 64, dtype=dtype)


def build(name, model, **arguments):
    return WRAPPED[name].build(model, **arguments)


def by_hand(name, model, **arguments):
    return WRAPPED[name].by_hand(model, **arguments)


def trained(name, steps=4, builder=build, **arguments):
    """Return a model and its optimizer after some steps."""
    model = make_model()
    optimizer = builder(name, model, **arguments)
    return train(model, optimizer, range(steps)), optimizer


def resumed(name, saved, model=None, **arguments):
    """Return a fresh model and optimizer with saved states."""
    fresh = model or make_model()
    fresh.load_state_dict(saved[0])
    optimizer = build(name, fresh, **arguments)
    optimizer.load_state_dict(saved[1])
    return fresh, optimizer
