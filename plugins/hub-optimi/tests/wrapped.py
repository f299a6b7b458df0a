"""`stable_adamw` and optimi's class."""

import warnings

import optimi
import pytest
import torch

from hub.testing.upstream import Wrapped, by_file


def on_cpu(groups, **arguments):
    """Build upstream's class, kept from choosing triton on a CPU."""
    if "foreach" not in arguments:
        arguments["triton"] = False
    elif any(p.dtype is torch.bfloat16 for group in groups for p in group["params"]):
        arguments["foreach"] = False  # hub rounds like this, see test_upstream.py
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return optimi.StableAdamW(groups, **arguments)


OWN = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-7, "weight_decay": 0.1}
WRAPPED = Wrapped("stable_adamw", optimi.StableAdamW, OWN, make=on_cpu)
build, by_hand = WRAPPED.build, WRAPPED.by_hand
every_dtype = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str
)
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
implementations = pytest.mark.parametrize(
    "arguments",
    [{}, {"foreach": True}, {"foreach": False}, {"triton": False}, {"kahan_sum": False}],
    ids=str,
)


def resumed(model, optimizer, fresh, **arguments):
    """Return a fresh model and its optimizer, which go on from what the others would save."""
    again = build(fresh, **arguments)
    by_file((model, optimizer), (fresh, again))
    return fresh, again
