"""Quadratic problems: curvature, scale, noise, and losses that change while training."""

from __future__ import annotations

import itertools
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from hub.compare.tasks.problems.problem import SCALE, Model, Problem, fixed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Generator, Tensor

SIZE = 16
STEPS = 200
HALF = STEPS // 2


class Batch(NamedTuple):
    """What a step does to the loss: the default is to leave it as it is."""

    factor: Tensor = torch.ones(())
    """Multiplies the curvature, of all numbers or of each."""
    progress: Tensor = torch.ones(())
    """Multiplies the goal."""
    push: Tensor = torch.zeros(())
    """Is added to the gradient."""


class Quadratic(Model):
    """½ Σ curvature·((W - goal)·basis)² of a matrix W = weight / SCALE that starts near 0."""

    curvature: Tensor
    basis: Tensor
    goal: Tensor

    def __init__(
        self,
        curvature: Tensor | None = None,
        basis: Tensor | None = None,
        size: int = SIZE,
        scale: float = 1.0,
    ) -> None:
        """Take the curvature, by default 1, an orthogonal basis, and the size of the goal."""
        super().__init__()
        self.point = nn.Linear(size, size, bias=False)
        nn.init.normal_(self.point.weight, std=0.1 * SCALE * scale)
        curvature = torch.ones(()) if curvature is None else curvature
        basis = torch.eye(size) if basis is None else basis
        self.constant("curvature", curvature)
        self.constant("basis", basis)
        self.constant("goal", scale * goal(size))

    def forward(self, batch: Batch) -> Tensor:
        """Return SCALE times the sum, with what the batch does to it."""
        factor, progress, push = batch
        return self._height(factor, progress) + (push * self.point.weight).sum()

    def held_out(self) -> Tensor:
        """Return SCALE times the sum."""
        return self._height(1.0, 1.0)

    def _height(self, factor: Tensor | float, progress: Tensor | float) -> Tensor:
        error = (self.point.weight / SCALE - progress * self.goal) @ self.basis
        return SCALE * (factor * self.curvature * error.square()).sum() / 2


class Sum(Model):
    """The sum of several problems without data, each with its own parameters."""

    def __init__(self, parts: list[Quadratic]) -> None:
        super().__init__()
        self.parts: Iterable[Quadratic] = nn.ModuleList(parts)  # type: ignore[assignment]

    def forward(self, batch: Batch) -> Tensor:
        """Return the sum of the losses."""
        return torch.stack([part(batch) for part in self.parts]).sum()

    def held_out(self) -> Tensor:
        """Return the sum of the held-out losses."""
        return torch.stack([part.held_out() for part in self.parts]).sum()


@cache
def goal(size: int) -> Tensor:
    """Return the answer of every quadratic problem of a size."""
    return torch.randn(size, size, generator=fixed())


def curvatures(count: int, condition: float) -> Tensor:
    """Return numbers from 1 down to 1/condition, evenly spread in their logarithms, shuffled."""
    order = torch.randperm(count, generator=fixed())
    return torch.logspace(0, -torch.tensor(condition).log10().item(), count)[order]


def rotation(size: int) -> Tensor:
    """Return an orthogonal matrix that leaves no axis where it was."""
    found: Tensor = torch.linalg.qr(goal(size)).Q
    return found


def still(_: Generator) -> Iterator[Batch]:
    """Leave the loss as it is."""
    return itertools.repeat(Batch())


def gaussian(generator: Generator) -> Iterator[Batch]:
    """Add noise twice as large as the gradients at the start."""
    while True:
        yield Batch(push=2 * torch.randn(SIZE, SIZE, generator=generator))


def cauchy(generator: Generator) -> Iterator[Batch]:
    """Add Cauchy noise, without a mean or a variance: a larger one is always to come."""
    while True:
        uniform = torch.rand(SIZE, SIZE, generator=generator, dtype=torch.float64)
        yield Batch(push=0.1 * torch.tan(torch.pi * (uniform - 0.5)).float())


def outliers(generator: Generator) -> Iterator[Batch]:
    """Add to one batch in 20 a wrong gradient, 30 times larger than the right one."""
    while True:
        yield from itertools.repeat(Batch(), 4)
        yield Batch(push=30 * torch.randn(SIZE, SIZE, generator=generator))
        yield from itertools.repeat(Batch(), 15)


def flipping(_: Generator) -> Iterator[Batch]:
    """Push one way and back, 15 times as hard as the loss pulls."""
    push = 15 * goal(SIZE).flip(0).sign()
    return itertools.cycle([Batch(push=push), Batch(push=-push)])


def growing(_: Generator) -> Iterator[Batch]:
    """Train the upper half of the matrix first, then the lower one with 1000 times the loss."""
    rows = torch.arange(SIZE)[:, None]
    first = Batch(factor=(rows < SIZE // 2).float())
    second = Batch(factor=1e3 * (rows >= SIZE // 2))
    return itertools.chain(itertools.repeat(first, HALF), itertools.repeat(second))


def fading(_: Generator) -> Iterator[Batch]:
    """Train towards the opposite of the goal, then to the goal with a hundredth of the loss."""
    first = Batch(progress=-torch.ones(()))
    second = Batch(factor=torch.tensor(1e-2))
    return itertools.chain(itertools.repeat(first, HALF), itertools.repeat(second))


def moving(_: Generator) -> Iterator[Batch]:
    """Let the goal come from afar to its place, which it reaches in the last step."""
    places = (torch.tensor(min(4 * step / STEPS - 3, 1.0)) for step in itertools.count(1))
    return (Batch(progress=place) for place in places)


def ill_conditioned() -> Quadratic:
    """Make a matrix large enough for 8-bit optimizers to quantize its state."""
    return Quadratic(curvatures(64 * 64, 1e4).view(64, 64), size=64)


def valley() -> Quadratic:
    """Make a valley across all axes."""
    return Quadratic(curvatures(SIZE, 1e3), rotation(SIZE))


def oblong() -> Quadratic:
    """Make a bowl that no single step leads to the bottom of."""
    return Quadratic(curvatures(SIZE, 10))


def scales() -> Sum:
    """Make layers whose weights are of different sizes, and matter as much."""
    return Sum([Quadratic(torch.tensor(size**-2.0), scale=size) for size in (1, 0.1, 0.01)])


PROBLEMS = (
    Problem(
        name="ill_conditioned",
        hard="a quadratic whose curvature differs 10,000 times between the numbers of a matrix",
        solved="1/1000 of the loss at the start: numbers with a hundredth of the curvature have "
        "to arrive too",
        model=ill_conditioned,
        batches=still,
        target=0.012,
        solved_by="adamw_torch:lr=0.005",
        not_by="sgd:lr=0.05",
    ),
    Problem(
        name="valley",
        hard="a straight narrow valley, 1000 times longer than wide, along no axis: no rate for "
        "each number helps",
        solved="1/1000 of the loss at the start, far along the bottom of the valley",
        model=valley,
        batches=still,
        target=0.0009,
        solved_by="sgd:lr=0.05,momentum=0.9",
        not_by="sgd:lr=0.05",
    ),
    Problem(
        name="scales",
        hard="three layers that matter alike, each with weights ten times smaller than the last",
        solved="1 % of the loss at the start; each layer alone is a third of it",
        model=scales,
        batches=still,
        target=0.205,
        solved_by="adamw_torch:lr=0.005",
        not_by="sgd:lr=5e-6",
    ),
    Problem(
        name="noise",
        hard="gradients with noise of twice their size at the start",
        solved="10 % of the loss at the start: a single noisy gradient points at a place that is "
        "four times worse than the start",
        model=Quadratic,
        batches=gaussian,
        target=0.65,
        solved_by="sgd:lr=0.001",
        not_by="sgd:lr=0.05",
    ),
    Problem(
        name="heavy_tails",
        hard="gradients with Cauchy noise, which has no variance: the mean of many is as noisy "
        "as one",
        solved="20 % of the loss at the start: at a rate that gets there, one large number undoes "
        "all of it",
        model=oblong,
        batches=cauchy,
        target=0.585,
        solved_by="adamw_torch:lr=0.002",
        not_by="sgd:lr=0.005",
    ),
    Problem(
        name="outliers",
        hard="one batch in 20 has a wrong gradient that is 30 times too large",
        solved="10 % of the loss at the start; one such step, at a rate that gets there, leads "
        "further away than the start",
        model=oblong,
        batches=outliers,
        target=0.29,
        solved_by="sgd:lr=0.02,max_grad_norm=3",
        not_by="sgd:lr=0.02",
    ),
    Problem(
        name="sign_flips",
        hard="gradients point one way and back in turn, 15 times as hard as the loss pulls",
        solved="1 % of the loss at the start: the pushes have to cancel, not to be followed",
        model=Quadratic,
        batches=flipping,
        target=0.0675,
        solved_by="sgd:lr=0.0005,momentum=0.9",
        not_by="sgd:lr=0.0005",
    ),
    Problem(
        name="loss_grows",
        hard="half of the matrix has gradients in the first 100 steps, the other half later, "
        "1000 times larger",
        solved="1 % of the loss at the start; each half alone is half of it",
        model=Quadratic,
        batches=growing,
        target=0.0675,
        solved_by="adamw_torch:lr=0.003",
        not_by="sgd:lr=5e-5",
    ),
    Problem(
        name="loss_fades",
        hard="after 100 steps the goal jumps to the other side, and gradients are 100 times "
        "smaller",
        solved="10 % of the loss at the start, after a way of twice the distance; a memory of "
        "large gradients is in the way",
        model=Quadratic,
        batches=fading,
        target=0.67,
        solved_by="sgd:lr=0.05,momentum=0.9",
        not_by="sgd:lr=0.05",
    ),
    Problem(
        name="moving_goal",
        hard="the goal moves all the time",
        solved="5 % of the loss at the start, at the last place of the goal: 12 steps late "
        "is too late",
        model=Quadratic,
        batches=moving,
        target=0.335,
        solved_by="sgd:lr=0.05",
        not_by="schedule_free_sgd:lr=0.005",
    ),
)
