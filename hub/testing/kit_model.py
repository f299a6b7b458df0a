"""What the kit trains: a small model with every kind of parameter, on real text."""

from __future__ import annotations

import pydoc_data.topics
from functools import cache

import torch
from torch import Tensor, nn

WIDTH = 32
VOCABULARY = 128
SEQUENCES, LENGTH = 4, 24


class Block(nn.Module):
    """Linear layers with and without bias, and norms of two kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.Linear(WIDTH, WIDTH, bias=False)
        self.norm = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 2 * WIDTH)
        self.down = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape, (batch, length, WIDTH)."""
        x = x + self.attn(x).cumsum(1) / x.shape[1]
        down: Tensor = self.down(nn.functional.gelu(self.up(self.norm(x))))
        return x + down


class Model(nn.Module):
    """A byte-level language model.

    It has an embedding tied to the head, a convolution, a frozen layer, one-dimensional and
    zero-initialized parameters, and a `detour` that takes part in even steps only.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.conv = nn.Conv1d(WIDTH, WIDTH, 3)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.frozen = nn.Linear(WIDTH, WIDTH)
        self.frozen.requires_grad_(False)
        self.detour = nn.Linear(WIDTH, WIDTH)
        self.gain = nn.Parameter(torch.zeros(WIDTH))
        self.out = nn.RMSNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.embed.weight
        self.take_detour = True

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits of shape (batch, length, VOCABULARY) for tokens (batch, length)."""
        x = self.embed(tokens)
        x = x + self.conv(nn.functional.pad(x.mT, (2, 0))).mT
        for block in self.blocks:
            x = block(x)
        x = x + self.frozen(x) * self.gain
        if self.take_detour:
            x = x + self.detour(x)
        logits: Tensor = self.head(self.out(x))
        return logits

    def get_output_embeddings(self) -> nn.Module:
        """Return the head, as models of Transformers do."""
        return self.head


def make_model(dtype: torch.dtype = torch.float32, device: str = "cpu") -> Model:
    """Return the model with weights that are the same every time; draws no random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Model()
        nn.init.normal_(model.embed.weight, std=0.3)
    return model.to(device=device, dtype=dtype)


@cache
def _text() -> Tensor:
    """Return the documentation in the standard library, as bytes below 128."""
    text = "".join(pydoc_data.topics.topics[key] for key in sorted(pydoc_data.topics.topics))
    return torch.tensor(list(text.encode("ascii", "ignore")))


def batch(step: int, sequences: int = SEQUENCES) -> Tensor:
    """Return the tokens of a step, (sequences, LENGTH); the same for the same step."""
    generator = torch.Generator().manual_seed(step)
    starts = torch.randint(len(_text()) - LENGTH, (sequences,), generator=generator)
    return torch.stack([_text()[start : start + LENGTH] for start in starts.tolist()])


def loss_of(model: nn.Module, tokens: Tensor) -> Tensor:
    """Return the mean loss, in nats per byte, in fp32."""
    logits = model(tokens.to(next(model.parameters()).device)).float()
    targets = tokens[:, 1:].to(logits.device)
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten())
