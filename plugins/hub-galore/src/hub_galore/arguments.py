"""The arguments that the GaLore names take."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from hub.arguments import (
    AdafactorBase,
    AdamLike,
    Arguments,
    Eps,
    LearningRate,
    Search,
    WeightDecay,
)

Rate = Annotated[LearningRate, Search(1e-4, 0.03)]


class LowRankArguments(Arguments):
    """How the gradients of the target modules are projected.

    galore_torch 1.0 reads the first four from the group and has no defaults for them; these are the
    ones of Transformers' integration (5.23, `trainer_optimizer.py`). The last two are hub's.
    """

    rank: PositiveInt = 128
    """Number of singular directions that the gradient of a target weight is projected onto. Above
    the weight's smaller side all of them are kept, which saves no memory."""
    update_proj_gap: PositiveInt = 200
    """Steps between two updates of the projection of a target weight."""
    scale: Annotated[float, Field(gt=0), Search(0.0625, 1.0)] = 0.25
    """Factor on the updates of target weights, on top of the learning rate."""
    proj_type: Literal["std", "reverse_std", "right", "left", "full"] = "std"
    """Which side is projected: the smaller one (std), the larger one (reverse_std), always the
    columns (right) or the rows (left), or both (full)."""
    projection: Literal["svd", "randomized"] = "svd"
    """How singular directions are found: by an SVD, as in galore_torch, or by a randomized range
    finder that starts from the last ones. For large weights that takes a small part of the time,
    and it skips gradients with NaN or infinity, at which the SVD fails."""
    refresh: Literal["together", "staggered"] = "together"
    """Update all projections in the same step, as galore_torch does, or spread them over the steps
    between two updates. Then the first projections are rough, and each is replaced within the next
    16 steps, or an eighth of update_proj_gap if that is more."""


class AdamWArguments(LowRankArguments, AdamLike):
    """Arguments of `galore_torch.GaLoreAdamW`."""

    lr: Rate = 1e-3
    eps: Eps = 1e-6
    weight_decay: WeightDecay = 0.0
    correct_bias: bool = True
    """Correct the running averages for their start at zero; the first BERT did not."""


class AdamW8bitArguments(LowRankArguments, AdamLike):
    """Arguments of `galore_torch.GaLoreAdamW8bit`."""

    lr: Rate = 1e-3
    min_8bit_size: int = Field(default=4096, ge=0)
    """Tensors of fewer elements keep 32-bit state; for target weights the projected size counts."""


class AdafactorArguments(LowRankArguments, AdafactorBase):
    """Arguments of `galore_torch.GaLoreAdafactor`."""

    lr: Rate | None = 1e-3
    """Learning rate; None with `relative_step`."""
