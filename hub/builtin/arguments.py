"""The arguments of torch's optimizers and Adafactor. Does not import torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hub.arguments import (
    AdafactorBase,
    AdamLike,
    Arguments,
    Eps,
    L2Penalty,
    LearningRate,
    Search,
    SgdLike,
)

NonNegative = Annotated[float, Field(ge=0)]


class TorchArguments(Arguments):
    """Arguments of all of torch's optimizers; defaults as in torch 2.13."""

    foreach: bool | None = None
    """Use the multi-tensor implementation; None lets torch decide."""
    maximize: bool = False
    """Maximize the objective instead of minimizing it."""
    differentiable: bool = False
    """Let autograd differentiate through the step; cannot be combined with foreach."""


class Fused(TorchArguments):
    """Arguments of the optimizers that have a fused implementation."""

    fused: bool | None = None
    """Use the fused implementation; None lets torch decide."""

    @model_validator(mode="after")
    def _one_implementation(self) -> Self:
        if self.fused and (self.foreach or self.differentiable):
            raise ValueError(
                "fused=True cannot be combined with foreach=True or differentiable=True"
            )
        return self


class AdamWBase(Fused, AdamLike):
    """What every implementation of `torch.optim.AdamW` takes."""

    amsgrad: bool = False
    """Use the maximum of all past second moments (https://arxiv.org/abs/1904.09237)."""
    capturable: bool = False
    """Make the step safe to capture in a CUDA graph, and the learning rate a tensor that schedules
    change in place; requires parameters on an accelerator."""


class AdamWArguments(AdamWBase):
    """Arguments of `torch.optim.AdamW`, and `compile`."""

    compile: bool = False
    """Compile the update into one kernel, by torch.compile: less than half the time on a CPU, after
    some seconds in the first step. Needs a C++ compiler on a CPU and triton on CUDA."""

    @model_validator(mode="after")
    def _compiles_one_implementation(self) -> Self:
        others = ("foreach", "fused", "differentiable", "amsgrad", "capturable")
        given = [key for key in others if getattr(self, key)]
        if self.compile and given:
            raise ValueError(f"compile=True cannot be combined with {given[0]}=True")
        return self


class FusedAdamWArguments(AdamWBase):
    """Arguments of `torch.optim.AdamW` with its fused implementation."""

    fused: bool | None = True
    """Use the fused implementation."""
    state_dtype: Literal["bf16"] | None = None
    """Keep the moments of fp32 weights in this dtype, in half the memory; None: in that of the
    weights. Suits a second beta of at most 0.996, such as betas=(0.9, 0.95)."""

    @model_validator(mode="after")
    def _narrow_state_is_fused(self) -> Self:
        if self.state_dtype and not self.fused:
            raise ValueError("state_dtype='bf16' takes fused=True")
        return self


class SGDArguments(Fused, SgdLike):
    """Arguments of `torch.optim.SGD`."""


class AdagradArguments(Fused):
    """Arguments of `torch.optim.Adagrad`."""

    lr: LearningRate = 1e-2
    lr_decay: NonNegative = 0.0
    """Decay of the learning rate per step."""
    weight_decay: L2Penalty = 0.0
    initial_accumulator_value: NonNegative = 0.0
    """Initial value of the sums of squared gradients."""
    eps: Eps = 1e-10


class RMSpropArguments(TorchArguments):
    """Arguments of `torch.optim.RMSprop`."""

    lr: Annotated[LearningRate, Search(3e-5, 1e-2)] = 1e-2
    alpha: Annotated[NonNegative, Search(0.9, 0.999, "linear")] = 0.99
    """Smoothing constant of the running average of squared gradients."""
    eps: Eps = 1e-8
    weight_decay: L2Penalty = 0.0
    momentum: Annotated[NonNegative, Search(0.8, 0.99, "linear")] = 0.0
    """Momentum factor."""
    centered: bool = False
    """Normalize by the estimated variance of the gradient."""
    capturable: bool = False
    """Make the step safe to capture in a CUDA graph, and the learning rate a tensor that schedules
    change in place; requires parameters on an accelerator."""


class AdafactorArguments(AdafactorBase):
    """Arguments of `transformers.Adafactor` (5.23), and `foreach`."""

    foreach: bool | None = None
    """Use the multi-tensor implementation; None lets torch decide."""
