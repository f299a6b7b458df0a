"""Whether a parameter got the update of Muon: one whose singular values are all near one."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

LOWEST, HIGHEST, SHARE = 0.6, 1.25, 0.75
"""What five steps of Newton-Schulz leave of singular values, and for how many of them at least. It
does not get the smallest ones of a square matrix that far."""


def updates(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Step, and return how each planned parameter moved without weight decay, over its rate."""
    own = {
        name: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for name in group["param_names"]
    }
    parameters = dict(model.named_parameters())
    before = {name: parameters[name].detach().clone() for name in own}
    optimizer.step()
    return {
        name: (before[name] * (1 - rate * decay) - parameters[name].detach()) / rate
        for name, (rate, decay) in own.items()
    }


def is_orthogonal(update: Tensor, scale: float = 1.0) -> bool:
    """Whether the singular values of each matrix of an update are near a scale."""
    if update.ndim < 2 or min(update.shape[-2:]) < 2:
        return False
    values = torch.linalg.svdvals(update.double()) / scale
    in_band = (values > LOWEST).double().mean(dim=-1)
    return bool((values < HIGHEST).all() and (in_band >= SHARE).all())


def orthogonalized(found: Mapping[str, Tensor], scales: Mapping[str, float]) -> list[str]:
    """Return the names of the parameters that moved as Muon moves them.

    Args:
        found: What `updates` returned, or its blocks.
        scales: How `adjust_lr_fn` scales a parameter, by name; 1 where it is missing.
    """
    return [name for name, update in found.items() if is_orthogonal(update, scales.get(name, 1.0))]
