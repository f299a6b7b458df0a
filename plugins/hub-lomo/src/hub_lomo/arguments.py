"""The arguments that `lomo` and `adalomo` take."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hub.arguments import InBackward, LearningRate, PlainRate, WeightDecay

NonNegative = Annotated[float, Field(ge=0)]


class LomoArguments(InBackward):
    """Arguments of `lomo_optim.Lomo`."""

    lr: PlainRate = 1e-3
    weight_decay: WeightDecay = 0.0
    loss_scale: float | None = Field(default=2.0**10, ge=1)
    """For fp16 weights: the initial factor on the loss in `fused_backward`. It is halved, and the
    step skipped, when a gradient is infinite or not a number. None: no scaling."""
    loss_scale_window: int = Field(default=1000, ge=1)
    """Steps without such a gradient after which the loss scale is doubled."""


class AdaLomoArguments(LomoArguments):
    """Arguments of `lomo_optim.AdaLomo`."""

    lr: LearningRate = 1e-3
    eps: tuple[NonNegative, NonNegative] = (1e-30, 1e-3)
    """Added to the squared gradient, and the minimum that a weight's root mean square counts as."""
    clip_threshold: float = Field(default=1.0, gt=0)
    """Maximum root mean square of an update, before the learning rate is applied."""
    decay_rate: float = Field(default=-0.8, le=0)
    """At step t, running averages of the squared gradient keep a share of 1 - t**decay_rate."""
