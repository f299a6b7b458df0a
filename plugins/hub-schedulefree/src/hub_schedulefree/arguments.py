"""The arguments that the Schedule-Free names take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, field_validator, model_validator

from hub.arguments import Arguments, BetaOfSquare, Eps, LearningRate, Search

if TYPE_CHECKING:
    from typing import Self

ShareOfAverage = Annotated[float, Field(gt=0, lt=1), Search(0.9, 0.98, "linear")]


class ScheduleFreeArguments(Arguments):
    """What all three take."""

    lr: LearningRate = 0.0025
    weight_decay: Annotated[float, Field(ge=0), Search(1e-3, 0.5)] = 0.0
    """Decoupled weight decay coefficient, applied to the training weights (y)."""
    r: float = 0.0
    """Power of the step number in the weight that each step has in the average."""
    weight_lr_power: float = Field(default=2.0, ge=0)
    """Power of the largest learning rate so far in the weight that each step has in the average.
    With 0 the steps of a warm-up weigh as much as all others."""
    foreach: bool = True
    """Update all tensors of a group at once: faster, with one more temporary copy of them."""


class WarmupArguments(ScheduleFreeArguments):
    """What the names with a built-in warm-up take."""

    warmup_steps: int = Field(default=0, ge=0)
    """Number of optimizer steps over which the learning rate rises linearly to `lr`."""

    @field_validator("warmup_steps", mode="before")
    @classmethod
    def _is_not_a_share(cls, value: object) -> object:
        # schedulefree 1.4.1 takes 0.1 and multiplies the first learning rate by 1 / 0.1.
        if isinstance(value, float) and value >= 1 and value.is_integer():
            return int(value)  # as TrainingArguments of Transformers types its warmup_steps
        if isinstance(value, float):
            message = (
                "a number of optimizer steps, such as 100, not a share of the training run: "
                f"multiply {value} by the number of training steps, and round"
            )
            raise ValueError(message)  # noqa: TRY004 - pydantic passes a TypeError through
        return value


class AdamArguments(ScheduleFreeArguments):
    """What both kinds of Adam take."""

    betas: tuple[ShareOfAverage, BetaOfSquare] = (0.9, 0.999)
    """Share of the average in the training weights, and decay rate of the running average of the
    squared gradient. The first divides on the way to evaluation, so it cannot be 0."""
    eps: Eps = 1e-8


class AdamWArguments(WarmupArguments, AdamArguments):
    """Arguments of `schedulefree.AdamWScheduleFree`, and `compile`."""

    compile: bool = False
    """Compile the update into one kernel, by torch.compile, instead of foreach: less time on large
    weights, after seconds in the first step. Needs a C++ compiler on a CPU and triton on CUDA."""


class RAdamArguments(AdamArguments):
    """Arguments of `schedulefree.RAdamScheduleFree`."""

    silent_sgd_phase: bool = True
    """Move nothing in the first steps (4 at the default betas), until the variance of the second
    moment is tractable, instead of taking steps of plain SGD."""

    @model_validator(mode="after")
    def _leaves_the_silent_phase(self) -> Self:
        # The approximated length of the average tends to 2 / (1 - beta2) - 1 and must exceed 4.
        if self.silent_sgd_phase and 2 / (1 - self.betas[1]) <= 5:  # noqa: PLR2004
            message = (
                f"betas: with a second value of {self.betas[1]} the silent phase never ends, so "
                "nothing would be trained; use one above 0.6 or silent_sgd_phase=False"
            )
            raise ValueError(message)
        return self


class SGDArguments(WarmupArguments):
    """Arguments of `schedulefree.SGDScheduleFree`."""

    lr: LearningRate = 1.0
    momentum: ShareOfAverage = 0.9
    """Share of the average in the training weights."""
