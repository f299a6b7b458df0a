"""Check the arguments of `hub.build` and `hub.plan` that are not the optimizer's own."""

from __future__ import annotations

from typing import Any

from hub.arguments.values import is_number
from hub.errors import HubError, OptimArgsError
from hub.text import shown


def check_build_call(model: object, accumulation: object, max_grad_norm: object) -> None:
    """Raise `HubError` for arguments that are wrong for every optimizer."""
    check_model(model)
    check_whole_number("gradient_accumulation_steps", accumulation, "micro-batches", lowest=1)
    if max_grad_norm is not None and not (is_number(max_grad_norm) and max_grad_norm > 0):
        raise OptimArgsError(
            f"max_grad_norm={shown(max_grad_norm)} is not a norm",
            where="max_grad_norm",
            fix="pass a number above 0, or None for no clipping",
        )


def check_model(model: object) -> None:
    """Raise `HubError` unless the model is a `torch.nn.Module`."""
    from torch import nn  # not above: configurations are checked without torch

    if not isinstance(model, nn.Module):
        raise HubError(
            f"model is a {type(model).__name__}, not a torch.nn.Module",
            where="model",
            fix="pass the model itself: hub needs the names and kinds of its layers",
        )


def check_clipping(name: str, arguments: Any, max_grad_norm: object, accumulation: int) -> None:
    """Check that `clipping` and `max_grad_norm` are set together, and fit accumulation."""
    if (max_grad_norm is None) != (arguments.clipping is None):
        raise OptimArgsError(
            f"{name} updates before the norm of all gradients is known"
            if arguments.clipping is None
            else f"clipping='{arguments.clipping}' has no norm to clip to",
            where="max_grad_norm",
            fix="choose clipping='exact' (one extra backward pass), 'previous_norm' (uses the "
            "previous step's norm) or 'per_parameter'; or leave max_grad_norm out"
            if arguments.clipping is None
            else "pass max_grad_norm, or leave clipping out",
        )
    if arguments.clipping == "exact" and accumulation > 1:
        raise OptimArgsError(
            "the norm of accumulated gradients is not known before the last micro-batch",
            where="clipping='exact'",
            fix="use clipping='previous_norm' or 'per_parameter', or the eager form",
        )


def check_whole_number(
    key: str, value: object, things: str, *, lowest: int, where: str = ""
) -> None:
    """Raise `OptimArgsError` unless a value is a whole number of at least `lowest`."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (whole and lowest <= value < 2**63):  # type: ignore[operator]  # it is an int here
        raise OptimArgsError(
            f"{key}={shown(value)} is not a number of {things}",
            where=where or key,
            fix=f"pass a whole number, {lowest} or more",
        )
