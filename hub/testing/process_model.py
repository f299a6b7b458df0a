"""What several processes train: a model whose parameters are cut in every way, and its data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

VOCABULARY, CLASSES = 32, 16
WIDE, WIDTH = 256, 64
SEQUENCES, LENGTH = 2, 6


@dataclass(frozen=True)
class Shapes:
    """What a model has besides layers whose rows every number of ranks up to 4 shares evenly."""

    is_uneven: bool = False
    """A layer of 33 rows, and one of fewer elements in its last shard than in the others."""
    has_empty: bool = False
    """A layer of one row, of which all ranks but the first have none."""
    has_dead: bool = False
    """A layer that the forward pass leaves out: it never has a gradient."""


EVEN = Shapes()
UNEVEN = Shapes(is_uneven=True)
EMPTY = Shapes(has_empty=True)
DEAD = Shapes(has_dead=True)
ALL = Shapes(is_uneven=True, has_empty=True, has_dead=True)


class Net(nn.Module):
    """Classifies sequences of tokens.

    The rows of `wide` are whole blocks of quantized state, those of the other layers are not.
    """

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        inner = 33 if shapes.is_uneven else WIDTH
        self.embed = nn.Embedding(VOCABULARY, WIDE)
        self.wide = nn.Linear(WIDE, WIDTH, bias=False)
        self.norm = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, inner)
        self.down = nn.Linear(inner, WIDTH)
        self.gate = nn.Linear(WIDTH, 1) if shapes.has_empty else None
        self.dead = nn.Linear(WIDTH, WIDTH) if shapes.has_dead else None
        self.head = nn.Linear(WIDTH, CLASSES, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits of shape (batch, CLASSES) for tokens (batch, LENGTH)."""
        x = self.wide(self.embed(tokens).mean(1))
        x = x + self.down(nn.functional.gelu(self.up(self.norm(x))))
        if self.gate is not None:
            x = x * torch.sigmoid(self.gate(x))
        logits: Tensor = self.head(x)
        return logits

    def layers(self) -> list[nn.Module]:
        """Return the layers, without those that are left out."""
        return list(self.children())


def make_net(shapes: Shapes, dtype: torch.dtype) -> Net:
    """Return the model with weights that are the same every time; draws no random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net(shapes).to(dtype)


def part_of_batch(step: int, part: int) -> tuple[Tensor, Tensor]:
    """Return half a batch: tokens (SEQUENCES, LENGTH) and their classes (SEQUENCES,)."""
    generator = torch.Generator().manual_seed(2 * step + part)
    tokens = torch.randint(VOCABULARY, (SEQUENCES, LENGTH), generator=generator)
    return tokens, torch.randint(CLASSES, (SEQUENCES,), generator=generator)


def loss_of(model: nn.Module, step: int, part: int) -> Tensor:
    """Return the mean loss of half a batch, in fp32."""
    tokens, classes = part_of_batch(step, part)
    return nn.functional.cross_entropy(model(tokens).float(), classes)
