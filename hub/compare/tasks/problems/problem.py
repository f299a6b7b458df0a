"""What a problem is, and the task that it makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from hub.compare.tasks.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

SEED = 15
"""Of what is the same for every training: answers and held-out data."""
SCALE = 0.05
"""About the size of weights in networks. Problems whose answers are numbers of about 1 divide their
weights by it, and multiply their losses: gradients stay, and learning rates for networks fit."""


class Model(nn.Module):
    """Computes the loss of its own parameters."""

    def constant(self, name: str, value: Tensor) -> None:
        """Register a tensor that moves along with the model, and is not trained or saved."""
        self.register_buffer(name, value, persistent=False)

    def forward(self, batch: Any) -> Tensor:
        """Return the loss on a batch."""
        raise NotImplementedError

    def held_out(self) -> Tensor:
        """Return how far the loss without noise lies above the known answer's, a scalar."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A small problem with a known answer: its held-out loss is 0 there, and nowhere lower."""

    name: str
    hard: str
    """What makes it hard."""
    solved: str
    """What the answer is, and why the target means that it is found."""
    model: Callable[[], Model]
    """Make the model, at a random start."""
    batches: Callable[[torch.Generator], Iterator[Any]]
    target: float
    """A held-out loss: this or a lower one is a pass."""
    steps: int = 200
    solved_by: str
    """An optimizer with arguments that passes, as `hub compare` takes it."""
    not_by: str
    """One that does not."""

    def task(self, fingerprint: str) -> Task:
        """Return what is trained."""
        return Task(
            name=f"problems/{self.name}",
            summary=self.hard,
            unit="arbitrary units",
            model=lambda _: self.model(),
            batches=lambda seed: self.batches(torch.Generator().manual_seed(seed)),
            loss=_loss,
            evaluate=_held_out,
            steps=self.steps,
            target=self.target,
            fingerprint=fingerprint,
            quick=True,
        )


def _loss(module: nn.Module, batch: Any) -> Tensor:
    found: Tensor = module(batch)
    return found


def _held_out(module: nn.Module) -> float:
    return cast("Model", module).held_out().item()


def fixed() -> torch.Generator:
    """Return a generator for what no seed of a study changes."""
    return torch.Generator().manual_seed(SEED)


def product(layers: nn.Module, width: int, like: Tensor) -> Tensor:
    """Return the matrix that linear layers without biases are together, outputs × width."""
    found: Tensor = layers(torch.eye(width, device=like.device, dtype=like.dtype))
    return found.T


def nothing(_: torch.Generator) -> Iterator[Tensor]:
    """Yield batches for problems that have no data."""
    while True:
        yield torch.zeros(())
