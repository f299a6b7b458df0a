"""Checkpoints of several processes, by each of torch's routes, and runs that resume from them."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from hub.errors import HubError
from hub.testing.comparing import leaves
from hub.testing.process_runs import (
    STEPS,
    Average,
    Run,
    Setting,
    Spread,
    train_alone,
    train_together,
)
from hub.testing.strategies import Strategy, whole_weights

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn
    from torch.optim import Optimizer

    from hub.testing.process_model import Shapes

SAVED_AFTER = 2
FIRST, LAST = range(SAVED_AFTER), range(SAVED_AFTER, STEPS)


class Route(StrEnum):
    """How a checkpoint is written and read."""

    SHARDED = "sharded"
    """The sharded state dicts, in memory: the same number of ranks only."""
    FULL = "full"
    """The full state dicts of the first rank, which broadcasts them."""
    DISK = "disk"
    """Sharded state dicts that `torch.distributed.checkpoint` writes and reshards."""
    PLAIN = "plain"
    """`torch.save` of `state_dict()` on every rank: the same number of ranks only."""

    @property
    def reshards(self) -> bool:
        """Whether another number of ranks can read it."""
        return self in (Route.FULL, Route.DISK)


Routes = tuple[Route, ...]
ROUTES: Routes = tuple(Route)
_kept: dict[Path, Any] = {}
"""The sharded state dicts of this process."""


def save_together(
    setting: Setting, shapes: Shapes, strategy: Strategy, folder: Path, routes: Routes = ROUTES
) -> str:
    """Train on this rank with the others, and write a checkpoint by each route.

    Returns:
        Why hub refuses to train, or "".
    """
    spread = Spread(setting, shapes, strategy)
    try:
        optimizer = spread.build()
        train_together(spread.model, optimizer, FIRST)
    except HubError as error:
        return str(error)
    save_checkpoint(spread.model, optimizer, folder, routes)
    return ""


def save_alone(
    setting: Setting, shapes: Shapes, average: Average, folder: Path, routes: Routes = ROUTES
) -> str:
    """Train in one process, on what the ranks have together, and write checkpoints."""
    net = setting.net(shapes)
    optimizer = setting.subject().build_eager(net)
    train_alone(net, optimizer, average, FIRST)
    save_checkpoint(net, optimizer, folder, routes)
    return ""


def resume_together(
    setting: Setting, shapes: Shapes, strategy: Strategy, folder: Path, route: Route
) -> Run:
    """Read a checkpoint into a new model and optimizer of this rank, and train on."""
    spread = Spread(setting, shapes, strategy)
    optimizer = spread.build()
    _load(spread.model, optimizer, folder, route)
    evaluated = train_together(spread.model, optimizer, LAST)
    return Run(whole_weights(spread.model), evaluated)


def resume_alone(
    setting: Setting, shapes: Shapes, average: Average, folder: Path, route: Route
) -> Run:
    """Read a checkpoint in one process, and train on."""
    net = setting.net(shapes)
    optimizer = setting.subject().build_eager(net)
    _load(net, optimizer, folder, route)
    evaluated = train_alone(net, optimizer, average, LAST)
    return Run(whole_weights(net), evaluated)


def keys_together(setting: Setting, shapes: Shapes, strategy: Strategy) -> list[dict[str, str]]:
    """Return what a state dict holds on this rank: before the first step, and after each of two.

    Where, and there the plain value, or a tensor's dtype and whole shape; nothing if hub refuses.
    """
    spread = Spread(setting, shapes, strategy)
    try:
        optimizer = spread.build()
        found = [_described(optimizer)]
        for step in FIRST:
            train_together(spread.model, optimizer, range(step, step + 1))
            found.append(_described(optimizer))
    except HubError:
        return []
    return found


def _described(optimizer: Optimizer) -> dict[str, str]:
    return {
        path: f"{value.dtype} {tuple(value.shape)}"
        if isinstance(value, torch.Tensor)
        else repr(value)
        for path, value in leaves(optimizer.state_dict())
    }


def save_checkpoint(model: nn.Module, optimizer: Optimizer, folder: Path, routes: Routes) -> None:
    """Write a checkpoint by each route; every rank has to call this."""
    folder.mkdir(exist_ok=True)
    if Route.SHARDED in routes:
        _kept.clear()
        _kept[folder] = _state_dicts(model, optimizer)
    if Route.DISK in routes:
        save(_state_dicts(model, optimizer), checkpoint_id=folder / Route.DISK)
    if Route.PLAIN in routes:
        plain = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(plain, folder / f"{Route.PLAIN}-{_rank()}.pt")
    if Route.FULL in routes:
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        full = _state_dicts(model, optimizer, options)
        if _rank() == 0:
            torch.save(full, folder / f"{Route.FULL}.pt")
    if distributed.is_initialized():
        distributed.barrier()


def _load(model: nn.Module, optimizer: Optimizer, folder: Path, route: Route) -> None:
    if route is Route.PLAIN:
        plain = torch.load(folder / f"{route}-{_rank()}.pt", weights_only=True)
        model.load_state_dict(plain["model"])
        optimizer.load_state_dict(plain["optimizer"])
    elif route is Route.FULL:
        _load_full(model, optimizer, torch.load(folder / f"{route}.pt", weights_only=True))
    else:
        if route is Route.SHARDED:
            found = _kept[folder]
        else:
            found = _state_dicts(model, optimizer)
            load(found, checkpoint_id=folder / route)
        set_model_state_dict(model, found["model"])
        set_optimizer_state_dict(model, optimizer, found["optimizer"])


def _load_full(model: nn.Module, optimizer: Optimizer, found: dict[str, Any]) -> None:
    broadcasts = distributed.is_initialized()
    # Not strict, as torch demands it where a parameter has never had a gradient.
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=broadcasts, strict=False)
    # Without a tensor, torch 2.13 does not find the device (`_load_optim_state_dict`).
    has_tensors = any(isinstance(v, torch.Tensor) for _, v in leaves(found["optimizer"]["state"]))
    if _rank() != 0:
        found = {"model": {}, "optimizer": {}}
    set_model_state_dict(model, found["model"], options=options)
    if has_tensors:
        set_optimizer_state_dict(model, optimizer, found["optimizer"], options=options)


def _state_dicts(
    model: nn.Module, optimizer: Optimizer, options: StateDictOptions | None = None
) -> dict[str, Any]:
    return {
        "model": get_model_state_dict(model, options=options),
        "optimizer": get_optimizer_state_dict(model, optimizer, options=options),
    }


def _rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0
