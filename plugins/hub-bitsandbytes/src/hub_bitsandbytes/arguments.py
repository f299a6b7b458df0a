"""The arguments that the bitsandbytes names take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt, field_validator, model_validator

from hub.arguments import (
    AdamLike,
    Arguments,
    Beta,
    BetaOfGradient,
    BetaOfSquare,
    Eps,
    L2Penalty,
    LearningRate,
    Search,
    WeightDecay,
)

if TYPE_CHECKING:
    from typing import Self


class EightBitArguments(Arguments):
    """What decides which state is kept in 8 bits."""

    min_8bit_size: int = Field(default=4096, ge=0)
    """Parameters of fewer elements keep 32-bit state."""
    embeddings_32bit: bool = True
    """Keep 32-bit state for the weights of embeddings, whose rows are updated too unevenly for 8
    bits."""


class AdamWArguments(AdamLike):
    """Arguments of `bitsandbytes.optim.PagedAdamW32bit`."""


class AdamW8bitArguments(EightBitArguments, AdamWArguments):
    """Arguments of `bitsandbytes.optim.AdamW8bit` and `PagedAdamW8bit`."""


class AdEMAMixArguments(Arguments):
    """Arguments of `bitsandbytes.optim.AdEMAMix` and `PagedAdEMAMix`."""

    lr: LearningRate = 1e-3
    betas: tuple[BetaOfGradient, BetaOfSquare, Beta] = (0.9, 0.999, 0.9999)
    """Decay rates of the fast average of the gradient, of the average of its square, and of the
    slow average of the gradient. Two values, as trainers pass them, leave the third at 0.9999."""
    alpha: Annotated[float, Field(ge=0), Search(1.0, 16.0)] = 5.0
    """Weight of the slow average in the update."""
    t_alpha: PositiveInt | None = None
    """Steps over which `alpha` rises linearly from 0; None: it is constant."""
    t_beta3: PositiveInt | None = None
    """Steps over which the third of `betas` rises from the first; None: it is constant."""
    eps: Eps = 1e-8
    weight_decay: WeightDecay = 1e-2

    @field_validator("betas", mode="before")
    @classmethod
    def _has_a_third(cls, value: object) -> object:
        # bitsandbytes 0.50.2 silently sets a missing third value to 0.
        if isinstance(value, tuple | list) and len(value) == 2:  # noqa: PLR2004
            return (*value, cls.model_fields["betas"].default[2])
        return value

    @model_validator(mode="after")
    def _can_be_scheduled(self) -> Self:
        if self.t_beta3 is not None and 0 in (self.betas[0], self.betas[2]):
            message = (
                f"t_beta3={self.t_beta3} takes logarithms of the first and the third of "
                f"betas={self.betas}; make both greater than 0, or leave t_beta3 out"
            )
            raise ValueError(message)
        return self


class AdEMAMix8bitArguments(EightBitArguments, AdEMAMixArguments):
    """Arguments of `bitsandbytes.optim.AdEMAMix8bit` and `PagedAdEMAMix8bit`."""


class LionArguments(Arguments):
    """Arguments of `bitsandbytes.optim.Lion32bit` and `PagedLion32bit`."""

    lr: LearningRate = 1e-4
    betas: tuple[BetaOfGradient, BetaOfSquare] = (0.9, 0.99)
    """Share of the running average of the gradient in the update, and its decay rate."""
    weight_decay: Annotated[WeightDecay, Search(0.01, 3.0)] = 0.0


class Lion8bitArguments(EightBitArguments, LionArguments):
    """Arguments of `bitsandbytes.optim.Lion8bit` and `PagedLion8bit`."""


class RMSpropArguments(Arguments):
    """Arguments of `bitsandbytes.optim.RMSprop` and `RMSprop32bit`."""

    lr: Annotated[LearningRate, Search(3e-5, 1e-2)] = 1e-2
    alpha: Annotated[float, Field(gt=0, lt=1), Search(0.9, 0.999, "linear")] = 0.99
    """Decay rate of the running average of the squared gradient."""
    eps: Eps = 1e-8
    weight_decay: L2Penalty = 0.0


class RMSprop8bitArguments(EightBitArguments, RMSpropArguments):
    """Arguments of `bitsandbytes.optim.RMSprop8bit`."""
