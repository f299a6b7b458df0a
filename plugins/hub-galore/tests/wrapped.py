"""The GaLore names and galore_torch's classes, over one model."""

from functools import partial

import galore_torch
import pytest
import torch

from hub.testing.upstream import Wrapped, small_model

TARGETS = ["0", "2"]
"""A tall and a wide weight; the head, "3", is not a target."""
LOW_RANK = {"rank": 4, "update_proj_gap": 3, "scale": 0.5, "proj_type": "std"}
make_model = partial(small_model, widths=(64, 128, 64, 3))


def eight_bit(groups, **arguments):
    """Build upstream's class with its mistakes corrected (see `factory.GaLoreAdamW8bit`)."""
    optimizer = galore_torch.GaLoreAdamW8bit(groups, **arguments)
    optimizer.args.max_unorm, optimizer.args.skip_zeros = 0.0, False
    return optimizer


ROWS = {
    "galore_adamw": (
        galore_torch.GaLoreAdamW,
        {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-7},
        {"no_deprecation_warning": True},
        None,
    ),
    "galore_adafactor": (
        galore_torch.GaLoreAdafactor,
        {"lr": 0.01, "eps": (1e-28, 1e-2), "beta1": 0.9, "decay_rate": -0.7},
        {"relative_step": False, "scale_parameter": False},
        None,
    ),
    "galore_adamw_8bit": (
        galore_torch.GaLoreAdamW8bit,
        {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-7},
        {},
        eight_bit,
    ),
}
WRAPPED = {
    name: Wrapped(
        name,
        cls,
        {**LOW_RANK, **arguments, "weight_decay": 0.1},
        theirs=theirs,
        targets=TARGETS,
        low_rank=LOW_RANK,
        model=make_model,
        make=make,
    )
    for name, (cls, arguments, theirs, make) in ROWS.items()
}
every_name = pytest.mark.parametrize("name", WRAPPED)
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
every_projection = pytest.mark.parametrize(
    "proj_type", ["std", "reverse_std", "right", "left", "full"]
)


def build(name, model, **arguments):
    return WRAPPED[name].build(model, **arguments)


def by_hand(name, model, **arguments):
    return WRAPPED[name].by_hand(model, **arguments)
