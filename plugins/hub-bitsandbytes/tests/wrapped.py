"""The bitsandbytes names and bitsandbytes' classes, over one model."""

import pytest
import torch
from bitsandbytes import optim
from hub_bitsandbytes.names import ADEMAMIX, ROWS
from torch import nn

from hub.testing.upstream import Wrapped

EIGHT_BIT = [name for name, row in ROWS.items() if row.is_8bit]
PAGED = [name for name, row in ROWS.items() if row.paged]
OF_ADEMAMIX = [name for name, row in ROWS.items() if row.family is ADEMAMIX]
FP32, BF16, FP16 = DTYPES = torch.float32, torch.bfloat16, torch.float16
every_name = pytest.mark.parametrize("name", ROWS)
every_8bit_name = pytest.mark.parametrize("name", EIGHT_BIT)
every_paged_name = pytest.mark.parametrize("name", PAGED)
both_dtypes = pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
quiet_upstream = pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
"""Lets the upstream paged classes say what they say on CPU."""
narrow_weights = pytest.mark.filterwarnings("ignore:.*(bf16|fp16):hub.HubWarning")

ARGUMENTS = {  # of each family: all away from their defaults
    "AdamW": {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6},
    "AdEMAMix": {"lr": 0.01, "betas": (0.8, 0.95, 0.99), "eps": 1e-6, "alpha": 2.0},
    "Lion": {"lr": 0.003, "betas": (0.8, 0.9)},
    "RMSprop": {"lr": 0.003, "alpha": 0.9, "eps": 1e-6},
}
SCHEDULED = {"t_alpha": 4, "t_beta3": 6}


class Model(nn.Module):
    """An embedding and two layers with 8-bit state, all of whole blocks, and small parameters."""

    def __init__(self, dtype=FP32):
        torch.manual_seed(0)
        super().__init__()
        self.embed = nn.Embedding(80, 64)
        self.up = nn.Linear(64, 128)
        self.norm = nn.LayerNorm(128)
        self.down = nn.Linear(128, 64)
        self.head = nn.Linear(64, 3)
        self.to(dtype)

    def forward(self, tokens):
        return self.head(self.down(torch.relu(self.norm(self.up(self.embed(tokens))))))


WRAPPED = {
    name: Wrapped(
        name,
        getattr(optim, row.upstream),
        {**ARGUMENTS[row.family.title], "weight_decay": 0.1},
        model=Model,
    )
    for name, row in ROWS.items()
}


def build(name, model, **arguments):
    return WRAPPED[name].build(model, **arguments)


def by_hand(name, model, **arguments):
    return WRAPPED[name].by_hand(model, **arguments)


def plainly(name):
    """Arguments with which hub's 8-bit names do what the upstream classes do."""
    return {"embeddings_32bit": False} if ROWS[name].is_8bit else {}


def bits(model, optimizer):
    """Return the names of the parameters whose state is in 8 bits."""
    return {
        name
        for name, p in model.named_parameters()
        if optimizer.state[p]["state1"].dtype == torch.uint8
    }


def resumed(name, saved, dtype=FP32, **arguments):
    """Return a fresh model and optimizer with saved states."""
    fresh = Model(dtype)
    fresh.load_state_dict(saved[0])
    optimizer = build(name, fresh, **arguments)
    optimizer.load_state_dict(saved[1])
    return fresh, optimizer
