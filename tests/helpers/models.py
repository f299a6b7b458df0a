"""The model that most tests build for, and the loop that trains it."""

import torch
from torch import nn


class Block(nn.Module):
    """An attention-shaped block: linear layers with and without bias, and norms."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = nn.ModuleDict(
            {
                "q_proj": nn.Linear(width, width, bias=False),
                "o_proj": nn.Linear(width, width),
                "q_norm": nn.LayerNorm(width),
            }
        )
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = self.attn["q_norm"](self.attn["q_proj"](x))
        return self.mlp(x + self.attn["o_proj"](q)) * self.scale


class Model(nn.Module):
    """Embedding, convolution, blocks, a frozen layer, and a head tied to the embedding."""

    def __init__(self, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(32, width)
        self.conv = nn.Conv1d(width, width, 3, padding=1)
        self.layers = nn.ModuleList(Block(width) for _ in range(depth))
        self.frozen = nn.Linear(width, width)
        self.frozen.requires_grad_(False)
        self.head = nn.Linear(width, 32, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        x = self.conv(x.mT).mT
        for layer in self.layers:
            x = layer(x)
        return self.head(self.frozen(x))

    def get_output_embeddings(self) -> nn.Module:
        return self.head


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, start: int = 0) -> None:
    """Take steps on data that depends on the step's number only."""
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(step)
        tokens = torch.randint(0, 32, (2, 8), generator=generator)
        logits = model(tokens).float()
        nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
        ).backward()
        optimizer.step()
        optimizer.zero_grad()
