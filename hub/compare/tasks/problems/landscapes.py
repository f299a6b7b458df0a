"""Problems without data: saddles, plateaus, a curved valley, a product of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from hub.compare.tasks.problems.problem import SCALE, Model, Problem, fixed, nothing, product

if TYPE_CHECKING:
    from torch import Tensor

SIZE = 16
DEEP, THIN = 8, 32
VALUES = (8.0, 4.0, 2.0, 1.0)
"""The strengths of the directions that a factorization is to find."""


class Landscape(Model):
    """SCALE times the height of W = weight / SCALE; the lowest place has the height 0."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.point = nn.Linear(start.shape[1], start.shape[0], bias=False)
        with torch.no_grad():
            self.point.weight.copy_(SCALE * start)

    def forward(self, _: Tensor) -> Tensor:
        """Return the loss."""
        return self.held_out()

    def held_out(self) -> Tensor:
        """Return the loss."""
        return SCALE * self.height(self.point.weight / SCALE)

    def height(self, point: Tensor) -> Tensor:
        """Return the height of a matrix, a scalar."""
        raise NotImplementedError


class Saddle(Landscape):
    """‖WᵀW - I‖²/4 from next to 0, where all directions lead down and none is steep."""

    def __init__(self) -> None:
        super().__init__(1e-6 * torch.randn(SIZE, SIZE))

    def height(self, point: Tensor) -> Tensor:
        """Return the height of a matrix."""
        identity = torch.eye(SIZE, device=point.device)
        return (point.T @ point - identity).square().sum() / 4


class FlatSaddle(Landscape):
    """Σ (w⁴ - 1)²/16, which is flat to the third order at 0."""

    def __init__(self) -> None:
        super().__init__(0.05 * torch.ones(SIZE, SIZE) + 0.01 * torch.randn(SIZE, SIZE))

    def height(self, point: Tensor) -> Tensor:
        """Return the height of a matrix."""
        return (point.pow(4) - 1).square().sum() / 16


class Rosenbrock(Landscape):
    """Σ (1 - x)² + 10·(y - x²)², where x and y are the halves of the matrix."""

    def __init__(self) -> None:
        x, y = -torch.ones(SIZE, SIZE // 2), torch.ones(SIZE, SIZE // 2)
        super().__init__(torch.cat([x, y], dim=1) + 0.1 * torch.randn(SIZE, SIZE))

    def height(self, point: Tensor) -> Tensor:
        """Return the height of a matrix."""
        x, y = point.chunk(2, dim=1)
        return ((1 - x).square() + 10 * (y - x.square()).square()).sum()


class Plateau(Landscape):
    """Σ d²/(1 + d²), where d is the distance of each number from 1, ten at the start."""

    def __init__(self) -> None:
        super().__init__(-9 + 0.1 * torch.randn(SIZE, SIZE))

    def height(self, point: Tensor) -> Tensor:
        """Return the height of a matrix."""
        squared = (point - 1).square()
        return (squared / (1 + squared)).sum()


class Product(Model):
    """Half the squared distance of a product of matrices from a wanted one."""

    answer: Tensor

    def __init__(self, layers: list[nn.Linear], answer: Tensor) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.constant("answer", answer)

    def forward(self, _: Tensor) -> Tensor:
        """Return the distance."""
        return self.held_out()

    def held_out(self) -> Tensor:
        """Return the distance."""
        found = product(self.layers, self.answer.shape[1], self.answer)
        return (found - self.answer).square().sum() / 2


def depth() -> Product:
    """Make six layers next to 0.3 times the identity, which are to become a rotation."""
    layers = [nn.Linear(DEEP, DEEP, bias=False) for _ in range(6)]
    for layer in layers:
        start = 0.3 * torch.eye(DEEP) + 0.03 * torch.randn(DEEP, DEEP)
        layer.weight = nn.Parameter(start)
    skew = torch.randn(DEEP, DEEP, generator=fixed())
    return Product(layers, torch.matrix_exp((skew - skew.T) / 4))


def factorization() -> Product:
    """Make two thin matrices next to 0."""
    rank = len(VALUES)
    layers = [nn.Linear(THIN, rank, bias=False), nn.Linear(rank, THIN, bias=False)]
    for layer in layers:
        nn.init.normal_(layer.weight, std=0.1)
    left, _, right = torch.linalg.svd(torch.randn(THIN, THIN, generator=fixed()))
    return Product(layers, left[:, :rank] @ torch.diag(torch.tensor(VALUES)) @ right[:rank])


PROBLEMS = (
    Problem(
        name="saddle",
        hard="a start next to a saddle, where gradients are a millionth of what they will be",
        solved="1 % of the loss at the saddle: every direction of an orthogonal matrix is found",
        model=Saddle,
        batches=nothing,
        target=0.002,
        solved_by="adamw_torch:lr=0.002",
        not_by="sgd:lr=0.0005",
    ),
    Problem(
        name="flat_saddle",
        hard="a saddle that is flat to the third order: gradients nearly vanish around it",
        solved="1 % of the loss at the start: every number is near 1 or -1",
        model=FlatSaddle,
        batches=nothing,
        target=0.008,
        solved_by="adamw_torch:lr=0.005",
        not_by="sgd:lr=0.05",
    ),
    Problem(
        name="rosenbrock",
        hard="128 of Rosenbrock's curved valleys (with 10 for his 100), entered from the wrong end",
        solved="1 % of the loss at the start; at the bend of the valley it is a fifth",
        model=Rosenbrock,
        batches=nothing,
        target=0.285,
        solved_by="adamw_torch:lr=0.005",
        not_by="sgd:lr=5e-5",
    ),
    Problem(
        name="plateau",
        hard="a hole in a plateau that slopes by two thousandths",
        solved="1 % of the loss on the plateau: every number is in the hole",
        model=Plateau,
        batches=nothing,
        target=0.125,
        solved_by="adamw_torch:lr=0.005",
        not_by="sgd:lr=0.05",
    ),
    Problem(
        name="depth",
        hard="a product of six matrices that starts next to 0: no layer has a gradient without "
        "the others",
        solved="1 % of the loss at the start: the product is the wanted rotation",
        model=depth,
        batches=nothing,
        target=0.04,
        solved_by="sgd:lr=0.1,momentum=0.9",
        not_by="sgd:lr=0.1",
    ),
    Problem(
        name="factorization",
        hard="two thin matrices whose product is to be one of rank 4, from next to 0",
        solved="1 % of the loss at the start; without its smallest direction it is 0.5",
        model=factorization,
        batches=nothing,
        target=0.43,
        solved_by="adamw_torch:lr=0.03",
        not_by="sgd:lr=0.001",
    ),
)
