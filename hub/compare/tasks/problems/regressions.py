"""Small models that learn from batches of data; what generated the data is known."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from hub.compare.tasks.problems.problem import SCALE, Model, Problem, fixed, nothing, product

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Generator, Tensor

BATCH = 16
WIDTH, OUTPUTS, RANK = 24, 12, 3
NOISE = 0.1
FEATURES, COMMON = 32, 8
CLASSES = 8
HIDDEN = 16


class Regression(Model):
    """Learns a matrix W from inputs and what W makes of them."""

    answer: Tensor
    moments: Tensor

    def __init__(self, net: nn.Module, answer: Tensor, moments: Tensor, scale: float = 1.0) -> None:
        """Take the linear model, what W is to become, E[x xᵀ] of the inputs, and the model's scale.

        W is the model's matrix divided by the scale, which losses are multiplied with.
        """
        super().__init__()
        self.net = net
        self.scale = scale
        self.constant("answer", answer)
        self.constant("moments", moments)

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return half the mean squared distance, times the scale."""
        inputs, wanted = (one.to(self.answer.dtype) for one in batch)
        error: Tensor = self.net(inputs) / self.scale - wanted
        return self.scale * error.square().sum(1).mean() / 2

    def held_out(self) -> Tensor:
        """Return ½ E‖(W - answer)·x‖² times the scale, the expected loss without noise."""
        error = product(self.net, len(self.moments), self.answer) / self.scale - self.answer
        return self.scale * ((error @ self.moments) * error).sum() / 2


@cache
def low_rank_answer() -> Tensor:
    """Return a matrix of low rank whose values are about 1."""
    generator = fixed()
    left = torch.randn(OUTPUTS, RANK, generator=generator)
    right = torch.randn(RANK, WIDTH, generator=generator)
    found: Tensor = left @ right / RANK**0.5
    return found


def input_sizes() -> Tensor:
    """Return the standard deviations of inputs: from 1 down to a tenth."""
    return torch.logspace(0, -1, WIDTH)


def low_rank() -> Regression:
    """Make two layers with the rank of the answer between them."""
    net = nn.Sequential(
        nn.Linear(WIDTH, RANK, bias=False),
        nn.Linear(RANK, OUTPUTS, bias=False),
    )
    return Regression(net, low_rank_answer(), input_sizes().square().diag())


def noisy_samples(generator: Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw inputs, and what the answer and some noise make of them."""
    while True:
        inputs = torch.randn(BATCH, WIDTH, generator=generator) * input_sizes()
        noise = NOISE * torch.randn(BATCH, OUTPUTS, generator=generator)
        yield inputs, inputs @ low_rank_answer().T + noise


@cache
def sparse_answer() -> Tensor:
    """Return a matrix whose values are about 1."""
    return torch.randn(OUTPUTS, FEATURES, generator=fixed())


def frequencies() -> Tensor:
    """Return how often each feature is there: a few in every other sample, most in one of 50."""
    rare = torch.full((FEATURES - COMMON,), 1 / 50)
    return torch.cat([torch.full((COMMON,), 1 / 2), rare])


def sparse() -> Regression:
    """Make one layer that starts at 0."""
    net = nn.Linear(FEATURES, OUTPUTS, bias=False)
    nn.init.zeros_(net.weight)
    mean = frequencies()
    moments = mean[:, None] * mean + (mean * (1 - mean)).diag()
    return Regression(net, sparse_answer(), moments, SCALE)


def sparse_samples(generator: Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw which features each sample has, and what the answer makes of them."""
    while True:
        inputs = torch.bernoulli(frequencies().expand(BATCH, -1), generator=generator)
        yield inputs, inputs @ sparse_answer().T


class Logistic(Model):
    """Learns class probabilities from labels that are drawn from the true ones."""

    inputs: Tensor
    truth: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(WIDTH, CLASSES)
        nn.init.normal_(self.net.weight, std=0.01)
        inputs = torch.randn(512, WIDTH, generator=fixed()) * 4 * input_sizes()
        self.constant("inputs", inputs)
        truth = functional.log_softmax(inputs @ class_answer().T, -1)
        self.constant("truth", truth)

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean negative log likelihood of labels."""
        inputs, labels = batch
        return functional.cross_entropy(self.net(inputs.to(self.inputs.dtype)), labels)

    def held_out(self) -> Tensor:
        """Return the mean divergence from the true probabilities, in nats."""
        found = functional.log_softmax(self.net(self.inputs), -1)
        return functional.kl_div(found, self.truth, log_target=True, reduction="batchmean")


@cache
def class_answer() -> Tensor:
    """Return the weights that the true probabilities come from."""
    return torch.randn(CLASSES, WIDTH, generator=fixed()) / 4


def labelled_samples(generator: Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw inputs, and a label for each by the true probabilities."""
    while True:
        inputs = torch.randn(4 * BATCH, WIDTH, generator=generator) * 4 * input_sizes()
        probabilities = torch.softmax(inputs @ class_answer().T, -1)
        yield inputs, torch.multinomial(probabilities, 1, generator=generator)[:, 0]


class Xor(Model):
    """A network with one hidden layer that learns whether exactly one input is set."""

    points: Tensor
    labels: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1))
        points = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
        self.constant("points", points)
        self.constant("labels", torch.tensor([0.0, 1.0, 1.0, 0.0]))

    def forward(self, _: Tensor) -> Tensor:
        """Return the mean negative log likelihood of the four answers, in nats."""
        return self.held_out()

    def held_out(self) -> Tensor:
        """Return the mean negative log likelihood of the four answers, in nats."""
        found = self.net(self.points)[:, 0]
        return functional.binary_cross_entropy_with_logits(found, self.labels)


PROBLEMS = (
    Problem(
        name="low_rank",
        hard="linear regression through a layer of rank 3, from noisy samples of inputs of "
        "different sizes",
        solved="1 % of the expected loss at the start: all three directions are found",
        model=low_rank,
        batches=noisy_samples,
        target=0.17,
        solved_by="adamw_torch:lr=0.03",
        not_by="sgd:lr=0.01",
    ),
    Problem(
        name="sparse",
        hard="linear regression in which 24 of 32 features are there in one sample of 50",
        solved="1 % of the expected loss at the start; the rare features alone are 9 %",
        model=sparse,
        batches=sparse_samples,
        target=0.0145,
        solved_by="adamw_torch:lr=0.005",
        not_by="sgd:lr=0.005",
    ),
    Problem(
        name="logistic",
        hard="logistic regression from labels drawn at random, with inputs of different sizes",
        solved="0.06 nats from the true probabilities; without learning it is 1 nat",
        model=Logistic,
        batches=labelled_samples,
        target=0.06,
        solved_by="adamw_torch:lr=0.01",
        not_by="sgd:lr=0.005",
    ),
    Problem(
        name="xor",
        hard="exclusive or, by a network with one hidden layer",
        solved="ln(2)/4 nats: were one of the four answers wrong, the mean would be larger",
        model=Xor,
        batches=nothing,
        target=0.173,
        solved_by="adamw_torch:lr=0.03",
        not_by="sgd:lr=0.01",
    ),
)
