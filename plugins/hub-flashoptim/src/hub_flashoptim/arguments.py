"""The arguments that the FlashOptim names take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import model_validator

from hub.arguments import (
    AdamLike,
    Arguments,
    BetaOfGradient,
    BetaOfSquare,
    L2Penalty,
    LearningRate,
    PlainRate,
    Search,
    SgdLike,
    WeightDecay,
)

if TYPE_CHECKING:
    from typing import Self


class FlashArguments(Arguments):
    """What all of them take."""

    lr: LearningRate = 1e-3
    quantize: bool = True
    """Keep the state in 8 bits, with one fp16 scale per 32 elements; False: in the dtype of the
    parameter. Needs CUDA."""
    compress_state_dict: bool = True
    """Save quantized state as it is; False: as fp32, which takes more space and loads in other
    optimizers. Both resume exactly."""
    master_weight_bits: Literal[24, 32] | None = 24
    """Bits of the weights that updates are added to: the state of a bf16 or fp16 parameter holds
    the 8 or 16 bits that it lacks, so that small updates are not lost. None: the parameter's bits.
    Needs CUDA."""
    check_numerics: bool = False
    """Raise `flashoptim.NumericsError` in a step whose learning rate is too small to change the
    largest weights, assuming updates of lr with Lion and SGD, and of a tenth of it with Adam. Slow:
    the first step reads the largest weight of every parameter back from the device."""
    fused: bool = True
    """Step in one kernel per parameter instead of several operations. Needs CUDA and contiguous
    parameters."""


class DecoupledArguments(FlashArguments):
    """What the names with decoupled weight decay take."""

    weight_decay: WeightDecay = 0.0
    decouple_lr: bool = False
    """Shrink the weights by weight_decay times lr over its initial value, instead of times lr. At
    the initial lr a step then shrinks them by weight_decay itself, so 1e-5 replaces 1e-2 at an lr
    of 1e-3. The initial value is the `lr` of the group, or what a scheduler starts from."""

    @model_validator(mode="after")
    def _has_a_rate_to_divide_by(self) -> Self:
        if self.decouple_lr and self.lr == 0:
            raise ValueError("decouple_lr=True divides by lr, which must then be above 0")
        return self


class AdamArguments(FlashArguments, AdamLike):
    """Arguments of `flashoptim.FlashAdam`."""

    weight_decay: L2Penalty = 0.0


class AdamWArguments(DecoupledArguments, AdamLike):
    """Arguments of `flashoptim.FlashAdamW`."""

    weight_decay: WeightDecay = 1e-2


class SGDArguments(FlashArguments, SgdLike):
    """Arguments of `flashoptim.FlashSGD`."""

    lr: PlainRate = 1e-3


class SGDWArguments(DecoupledArguments, SgdLike):
    """Arguments of `flashoptim.FlashSGDW`."""

    lr: PlainRate = 1e-3


class LionArguments(DecoupledArguments):
    """Arguments of `flashoptim.FlashLion`."""

    lr: Annotated[LearningRate, Search(3e-6, 1e-3)] = 1e-3
    betas: tuple[BetaOfGradient, BetaOfSquare] = (0.9, 0.99)
    """Share of the running average of gradients in an update, and decay rate of that average."""
    weight_decay: Annotated[WeightDecay, Search(0.01, 3.0)] = 0.0
