"""A task of one's own for `hub compare`: tell two half moons apart.

    hub compare adamw_torch:lr=0.01 sgd:lr=0.1 --task examples.task:make

`hub compare` imports this file in the current folder and calls `make`. What makes the task are four
functions; `docs/compare.md` explains them.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from hub.compare import Task

BATCH_SIZE = 32
Batch = tuple[Tensor, Tensor]
"""Points, and for each of them 1 if it is of the upper moon, else 0."""


def moons(count: int, generator: torch.Generator) -> Batch:
    """Draw points: an upper half circle, and a lower one that reaches into it."""
    labels = torch.randint(2, (count,), generator=generator)
    angles = torch.pi * torch.rand(count, generator=generator)
    upper = torch.stack([angles.cos(), angles.sin()], dim=1)
    lower = torch.stack([1 - angles.cos(), 0.5 - angles.sin()], dim=1)
    points = torch.where(labels[:, None] == 1, upper, lower)
    return points + 0.1 * torch.randn(count, 2, generator=generator), labels.float()


def model(_: int) -> nn.Module:
    """Make the network. It takes the seed, by which torch has been seeded already."""
    return nn.Sequential(
        nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)
    )


def batches(seed: int) -> Iterator[Batch]:
    """Draw batches for as long as they are asked for: one seed always gives the same ones."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield moons(BATCH_SIZE, generator)


def loss(network: nn.Module, batch: Batch) -> Tensor:
    """Return what is minimized. The network and the batch are on the same device."""
    points, labels = batch
    return binary_cross_entropy_with_logits(network(points)[:, 0], labels)


def evaluate(network: nn.Module) -> float:
    """Return what optimizers are compared by: the loss on points that no training has seen."""
    device = next(network.parameters()).device
    points, labels = moons(1000, torch.Generator().manual_seed(1000))
    return loss(network, (points.to(device), labels.to(device))).item()


def make() -> Task:
    """Return the task."""
    return Task(
        summary="two half moons, 32 points a step",
        model=model,
        batches=batches,
        loss=loss,
        evaluate=evaluate,
        unit="nats a point",
        tokens=BATCH_SIZE,
        steps=200,
        target=0.05,
    )
