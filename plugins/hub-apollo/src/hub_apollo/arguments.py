"""The arguments that `apollo_adamw` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from hub.arguments import AdamLike, Arguments, Eps, LearningRate, Search, WeightDecay

if TYPE_CHECKING:
    from typing import Self


class LowRankArguments(Arguments):
    """How the gradients of the target modules are projected, and scaled by what that shows.

    apollo_torch 1.0.3 reads these from the group and has no defaults for them; these are the ones
    of Transformers' integration (5.23, `trainer_optimizer.py`). `projection` and `refresh` are
    hub's.
    """

    rank: PositiveInt = 128
    """Number of directions that the gradient of a target weight is projected onto. A quarter of the
    weight's smaller side is usual; 1 is APOLLO-Mini. From that side on the state is not low-rank,
    and above it, with proj="random", larger than AdamW's."""
    update_proj_gap: PositiveInt = 200
    """Steps between two updates of the projection."""
    scale: float = Field(default=1.0, gt=0)
    """Its square root is a factor on the updates of target weights, on top of the learning rate.
    It makes up for a small rank: 128 is usual for APOLLO-Mini."""
    proj: Literal["random", "svd"] = "random"
    """What the projection is made of: random numbers, which cost nothing, or the singular vectors
    of the gradient."""
    proj_type: Literal["std", "reverse_std", "right", "left"] = "std"
    """Which side is projected: the smaller one (std), the larger one (reverse_std), or always the
    columns (right) or the rows (left)."""
    projection: Literal["svd", "randomized"] = "svd"
    """With proj="svd": how singular vectors are found, by an SVD, as in apollo_torch, or by a
    randomized range finder that starts from the last ones. For large weights that takes a small
    part of the time, and it skips gradients with NaN or infinity, at which the SVD fails."""
    refresh: Literal["together", "staggered"] = "together"
    """Update all projections in the same step, as apollo_torch does, or spread them over the steps
    between two updates. Then the first projections by singular vectors are rough, and each is
    replaced within the next 16 steps, or an eighth of update_proj_gap if that is more."""
    scale_type: Literal["channel", "tensor"] = "channel"
    """Scale each channel of the larger side of a weight by its own factor, or the whole weight by
    one (tensor), as APOLLO-Mini does."""

    @model_validator(mode="after")
    def _finds_what_it_projects(self) -> Self:
        if self.projection == "randomized" and self.proj != "svd":
            message = "projection='randomized' finds singular vectors; it needs proj='svd'"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _leaves_channels_to_scale(self) -> Self:
        if self.scale_type == "channel" and self.proj_type == "reverse_std":
            message = (
                "proj_type='reverse_std' projects the channels that scale_type='channel' scales; "
                "use proj_type='std', or scale_type='tensor'"
            )
            raise ValueError(message)
        return self


class APOLLOArguments(LowRankArguments, AdamLike):
    """Arguments of `apollo_torch.APOLLOAdamW`."""

    lr: Annotated[LearningRate, Search(1e-4, 0.03)] = 1e-3
    eps: Eps = 1e-6
    weight_decay: WeightDecay = 0.0
    correct_bias: bool = True
    """Correct the running averages for their start at zero; the first BERT did not."""
    scale_front: bool = False
    """Apply `scale` before the growth of the update's norm is limited, instead of after: for runs
    with a short warm-up."""
    disable_nl: bool = False
    """Do not limit the growth of the update's norm. Otherwise it is 1 % a step for each target
    weight."""
