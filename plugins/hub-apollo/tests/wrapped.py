"""`apollo_adamw` and apollo_torch's class, over one model."""

import dataclasses
from functools import partial

import apollo_torch
import pytest
import torch

from hub.repairs import seed_from
from hub.testing.upstream import Wrapped, by_file, small_model

TARGETS = ["0", "2"]
"""A tall and a wide weight; the head, "3", is not a target."""
LOW_RANK = {
    "rank": 4,
    "update_proj_gap": 3,
    "scale": 2.0,
    "proj": "random",
    "proj_type": "std",
    "scale_type": "channel",
}
OWN = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-7}
MINI = {"rank": 1, "scale": 128.0, "scale_type": "tensor"}
PROJECTIONS = {
    "random": {},
    "svd": {"proj": "svd"},
    "mini": MINI,
    "random reverse": {"proj_type": "reverse_std", "scale_type": "tensor"},
    "random left": {"proj_type": "left", "scale_type": "tensor"},
    "svd reverse": {"proj": "svd", "proj_type": "reverse_std", "scale_type": "tensor"},
    "svd right": {"proj": "svd", "proj_type": "right", "scale_type": "tensor"},
    "random above both sides": {"rank": 50},
    "random above a side, reverse": {
        "rank": 30,
        "proj_type": "reverse_std",
        "scale_type": "tensor",
    },
    "svd above a side": {"proj": "svd", "rank": 30},
}
WAYS = {
    "randomized": {"proj": "svd", "projection": "randomized"},
    "staggered": {"refresh": "staggered", "update_proj_gap": 10},
    "both": {
        "proj": "svd",
        "projection": "randomized",
        "refresh": "staggered",
        "update_proj_gap": 10,
    },
}
"""How hub alone refreshes."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}
every_projection = pytest.mark.parametrize(
    "projection", PROJECTIONS.values(), ids=PROJECTIONS.keys()
)
both_projections = pytest.mark.parametrize("proj", ["random", "svd"])
every_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
make_model = partial(small_model, widths=(24, 40, 24, 3))


def seeded(groups, **arguments):
    """Build upstream's class with the seeds that hub takes."""
    optimizer = apollo_torch.APOLLOAdamW(groups, **arguments)
    for name, weight in zip(TARGETS, groups[-1]["params"], strict=True):
        optimizer.state[weight]["seed"] = seed_from(f"{name}.weight")
    return optimizer


WRAPPED = Wrapped(
    "apollo_adamw",
    apollo_torch.APOLLOAdamW,
    {**LOW_RANK, **OWN, "weight_decay": 0.1},
    targets=TARGETS,
    low_rank=LOW_RANK,
    model=make_model,
    make=seeded,
)
build, by_hand = WRAPPED.build, WRAPPED.by_hand
by_hand_with_own_seeds = dataclasses.replace(WRAPPED, make=None).by_hand


def resumed(model, optimizer, **arguments):
    """Return a fresh model and its optimizer, which go on from what the others would save."""
    fresh = make_model(next(model.parameters()).dtype)
    again = build(fresh, **arguments)
    by_file((model, optimizer), (fresh, again))
    return fresh, again


def projector(optimizer, parameter):
    return optimizer.state[parameter]["projector"]
