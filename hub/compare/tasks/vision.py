"""A vision transformer for images of 8×8 pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.functional import gelu, scaled_dot_product_attention

if TYPE_CHECKING:
    from torch import Tensor

SIDE, PATCH, CLASSES = 8, 2, 10
WIDTH, HEADS, DEPTH = 64, 4, 2


class Block(nn.Module):
    """Attention and an MLP, each added to what comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(WIDTH)
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.mlp_norm = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return batch × places × width, as what comes in."""
        tokens = tokens + self._attended(self.attention_norm(tokens))
        changed: Tensor = self.down(gelu(self.up(self.mlp_norm(tokens))))
        return tokens + changed

    def _attended(self, tokens: Tensor) -> Tensor:
        query, key, value = (
            each(tokens).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for each in (self.query, self.key, self.value)
        )
        heads = scaled_dot_product_attention(query, key, value)
        found: Tensor = self.out(heads.transpose(1, 2).flatten(-2))
        return found


class VisionTransformer(nn.Module):
    """Reads an image as 16 patches of 2×2 pixels, and takes the mean over them at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(PATCH**2, WIDTH)
        self.places = nn.Parameter(0.5 * torch.randn((SIDE // PATCH) ** 2, WIDTH))
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH)
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the classes, batch × 10, for images of batch × 8 × 8 pixels."""
        rows = images.to(self.places.dtype).unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH)
        tokens = self.embedding(rows.flatten(3).flatten(1, 2)) + self.places
        found: Tensor = self.classifier(self.norm(self.blocks(tokens)).mean(1))
        return found
