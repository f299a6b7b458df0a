"""Building blocks for the typed arguments of optimizers and schedules (pydantic)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Arguments(BaseModel):
    """A convenient base for arguments models: frozen, closed, and without inf or nan.

    Any pydantic model serves as the `arguments` of a spec; hub itself refuses unknown keys.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )
    elsewhere: ClassVar[Mapping[str, str]] = {}
    """What to use in place of keys that other packages have for it."""


LearningRate = Annotated[float, Field(ge=0, description="Learning rate.")]
WeightDecay = Annotated[float, Field(ge=0, description="Decoupled weight decay coefficient.")]
Beta = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[
    tuple[Beta, Beta],
    Field(description="Decay rates of the running averages of the gradient and of its square."),
]
Eps = Annotated[float, Field(ge=0, description="Added to the denominator for stability.")]


class InBackward(Arguments):
    """What every optimizer takes that steps inside the backward pass; see `hub.running`."""

    elsewhere = {"clip_grad_norm": "max_grad_norm of hub.build, and clipping"}
    clipping: Literal["exact", "previous_norm", "per_parameter"] | None = None
    """How `max_grad_norm` is kept. "exact": by a backward pass of its own before each step's,
    `hub.grad_norm(optimizer, loss)`. "previous_norm": by the gradient norm of the step before, an
    approximation. "per_parameter": each parameter's gradient has at most that norm."""
    clip_grad_value: float | None = Field(default=None, gt=0)
    """Clip every element of the gradient to this magnitude, before `max_grad_norm`."""


class AdafactorBase(Arguments):
    """What every Adafactor takes, with the defaults of Transformers' trainer (5.23).

    `lr`, `scale_parameter` and `relative_step` are 1e-3, False and False there
    (`trainer_optimizer.py`); the classes of Transformers and galore_torch have None, True and True.
    """

    lr: LearningRate | None = 1e-3
    """Learning rate; None, also by default, with `relative_step`."""
    eps: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(ge=0)]] = (1e-30, 1e-3)
    """Added to the squared gradient, and the least root mean square of a weight that
    `scale_parameter` scales by."""
    clip_threshold: float = Field(default=1.0, gt=0)
    """Largest root mean square of an update before the learning rate."""
    decay_rate: float = Field(default=-0.8, le=0)
    """Power of the step number in the decay rate of the running averages."""
    beta1: Beta | None = None
    """Decay rate of the running average of updates; None keeps none, which saves its memory."""
    weight_decay: WeightDecay = 0.0
    scale_parameter: bool = False
    """Multiply the learning rate by the root mean square of the weight."""
    relative_step: bool = False
    """Compute the learning rate from the number of steps."""
    warmup_init: bool = False
    """Let that rise slowly from near zero."""

    @model_validator(mode="before")
    @classmethod
    def _relative_step_is_the_learning_rate(cls, given: Any) -> Any:
        relative = isinstance(given, dict) and given.get("relative_step") is True
        return {"lr": None, **given} if relative else given

    @model_validator(mode="after")
    def _has_one_learning_rate(self) -> Self:
        if self.relative_step and self.lr is not None:
            raise ValueError(
                f"relative_step=True computes the learning rate: it needs lr=None, not lr={self.lr}"
            )
        if self.lr is None and not self.relative_step:
            raise ValueError("lr=None needs relative_step=True")
        if self.warmup_init and not self.relative_step:
            raise ValueError("warmup_init=True needs relative_step=True")
        return self
