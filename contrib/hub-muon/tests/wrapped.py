"""`muon` and torch's Muon, over one model of matrices."""

import math
from itertools import pairwise

import torch
from torch import nn

from hub.testing.upstream import Wrapped

ARGUMENTS = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.05, "eps": 1e-6}


def matrices(dtype=torch.float32):
    """A model of nothing but matrices: wide, tall and square."""
    torch.manual_seed(0)
    widths = (16, 48, 48, 8)
    layers = [nn.Linear(a, b, bias=False) for a, b in pairwise(widths)]
    return nn.Sequential(*layers).to(dtype)


MUON = Wrapped("muon", torch.optim.Muon, ARGUMENTS, model=matrices)


class Experts(nn.Module):
    """A stack of matrices, stored as (out, in) or as (in, out)."""

    def __init__(self, *shape, is_transposed=False):
        super().__init__()
        torch.manual_seed(1)
        self.is_transposed = is_transposed
        self.weight = nn.Parameter(torch.randn(shape) / math.sqrt(shape[-1]))


def random_gradients(model, step=0):
    """Give every parameter a gradient of full rank."""
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def each_alone(weight, gradients, cut, **arguments):
    """Return what torch's Muon makes of matrices, each stepped alone.

    Args:
        weight: What they are part of.
        gradients: Of `weight`, one for each step.
        cut: Returns the matrices of a tensor, as views.
        arguments: Of torch's class.
    """
    moved = weight.detach().clone()
    alone = [matrix.clone().requires_grad_() for matrix in cut(moved)]
    optimizers = [torch.optim.Muon([matrix], **arguments) for matrix in alone]
    for gradient in gradients:
        for matrix, part, optimizer in zip(alone, cut(gradient), optimizers, strict=True):
            matrix.grad = part.clone()
            optimizer.step()
    for view, matrix in zip(cut(moved), alone, strict=True):
        view.copy_(matrix.detach())
    return moved
