"""Fixes for the optimizers of schedulefree 1.4.1."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import schedulefree
import torch

from hub.backend import load

if TYPE_CHECKING:
    from torch.optim import Optimizer


def _build(upstream: Any, groups: list[dict[str, Any]], **arguments: Any) -> Optimizer:
    """Return an instance of an upstream class, in train mode.

    The mode is written, not switched to by `train()`: with schedulefree 1.4.1 that call leaves an
    empty state entry for every parameter, which torch's distributed checkpoints take for an
    initialized optimizer. Neither changes weights before the first step.
    """
    optimizer: Optimizer = upstream(groups, **arguments)
    for group in optimizer.param_groups:
        group["train_mode"] = True
    # A group added later takes its mode from here. Upstream's False would let it step all the same
    # and move its weights at the next `train()`; without state, True moves nothing.
    optimizer.defaults["train_mode"] = True
    optimizer.register_step_pre_hook(_make_rates_numbers)
    return optimizer


def adamw(
    groups: list[dict[str, Any]],
    *,
    compile: bool = False,  # noqa: A002 - the argument's name
    **arguments: Any,
) -> Optimizer:
    """Return schedulefree's AdamW, whose update is compiled if that is asked for."""
    if not compile:
        return _build(schedulefree.AdamWScheduleFree, groups, **arguments)
    load("torch._inductor.compile_fx")  # which warns, and the first step would import
    return _build(load("hub_schedulefree.compiled").CompiledAdamW, groups, **arguments)


radam = partial(_build, schedulefree.RAdamScheduleFree)
sgd = partial(_build, schedulefree.SGDScheduleFree)


def _make_rates_numbers(optimizer: Optimizer, _args: object, _kwargs: object) -> None:
    """Turn learning rates that are tensors into numbers, before the step.

    With a tensor of 0 schedulefree 1.4.1 makes weights that are not finite: it catches the division
    by zero of Python's numbers only.
    """
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"] = group["lr"].item()
