"""The arguments that the torchao names take."""

from __future__ import annotations

from pydantic import Field

from hub.arguments import AdamLike


class LowBitArguments(AdamLike):
    """What both take."""

    bf16_stochastic_round: bool = False
    """Round updated bf16 weights up or down at random, so that small updates count on average. The
    random numbers follow from the parameter's name and step."""


class AdamW4bitArguments(LowBitArguments):
    """Arguments of `torchao.optim.AdamW4bit`."""

    block_size: int = Field(default=128, gt=0, multiple_of=2)
    """Number of adjacent elements of the state that share a scale; even, since two of them share a
    byte. Tensors whose size it does not divide keep unquantized state."""


class AdamW8bitArguments(LowBitArguments):
    """Arguments of `torchao.optim.AdamW8bit`."""

    block_size: int = Field(default=256, gt=0)
    """Number of adjacent elements of the state that share a scale. Tensors whose size it does not
    divide keep unquantized state."""
