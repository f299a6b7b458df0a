"""Building blocks for the typed arguments of optimizers and schedules (pydantic)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hub.arguments.patterns import closest_names as closest_names
from hub.arguments.patterns import name_matcher as name_matcher
from hub.arguments.search import BETAS, DECAY, RATE
from hub.arguments.search import Search as Search
from hub.arguments.search import usual as usual
from hub.spec import Contrast


class Arguments(BaseModel):
    """A convenient base for argument models: frozen, without extra keys, inf or nan.

    Any pydantic model can be the `arguments` of a spec; hub itself refuses unknown keys.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )
    renamed_keys: ClassVar[Mapping[str, str]] = {}
    """What to use instead of keys that other packages have for the same purpose."""

    @classmethod
    def checked(cls, name: str, **values: Any) -> Self:
        """Return validated arguments, as strictly as `hub.build` validates them.

        Args:
            name: The optimizer or schedule that takes them, for messages.
            values: Arguments by name; the others have their defaults.

        Raises:
            OptimArgsError: An argument has the wrong type or is out of range.
        """
        from hub.arguments.resolve import validate_arguments

        return validate_arguments(name, cls, values)


LearningRate = Annotated[float, Field(ge=0, description="Learning rate."), RATE]
WeightDecay = Annotated[
    float, Field(ge=0, description="Decoupled weight decay coefficient."), DECAY
]
L2Penalty = Annotated[
    float, Field(ge=0, description="L2 penalty, added to the gradient."), Search(1e-6, 1e-2)
]
Beta = Annotated[float, Field(ge=0, lt=1)]
BetaOfGradient = Annotated[Beta, BETAS[0]]
BetaOfSquare = Annotated[Beta, BETAS[1]]
Betas = Annotated[
    tuple[BetaOfGradient, BetaOfSquare],
    Field(description="Decay rates of the running averages of the gradient and of its square."),
]
Eps = Annotated[
    float, Field(ge=0, description="Added to the denominator for stability."), Search(1e-10, 1e-6)
]
PlainRate = Annotated[LearningRate, Search(1e-3, 1.0)]


class AdamLike(Arguments):
    """Arguments of Adam and its variants, with the defaults of `torch.optim.AdamW` (2.13)."""

    lr: LearningRate = 1e-3
    betas: Betas = (0.9, 0.999)
    eps: Eps = 1e-8
    weight_decay: WeightDecay = 1e-2


class SgdLike(Arguments):
    """Arguments of SGD, with the defaults of `torch.optim.SGD` (2.13)."""

    lr: PlainRate = 1e-3
    momentum: Annotated[float, Field(ge=0), Search(0.8, 0.99, "linear")] = 0.0
    """Momentum factor."""
    dampening: float = 0.0
    """Dampening of the momentum."""
    weight_decay: L2Penalty = 0.0
    nesterov: bool = False
    """Nesterov momentum; requires momentum and no dampening."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError("nesterov=True needs momentum above 0 and dampening=0")
        return self


class InBackward(Arguments):
    """Arguments of every optimizer that steps inside the backward pass; see `hub.running`."""

    renamed_keys = {"clip_grad_norm": "max_grad_norm of hub.build, and clipping"}
    clipping: Literal["exact", "previous_norm", "per_parameter"] | None = None
    """How to apply `max_grad_norm`. "exact" measures the norm in an extra backward pass before each
    step, `hub.grad_norm(optimizer, loss)`. "previous_norm" uses the previous step's norm, an
    approximation. "per_parameter" limits the norm of each parameter's gradient separately."""
    clip_grad_value: float | None = Field(default=None, gt=0)
    """Clip every element of the gradient to this magnitude, before `max_grad_norm`."""


class LowMemory(Arguments):
    """Arguments that hub adds to those of every optimizer; see `hub.running.buckets`."""

    rounding: Literal["split", "stochastic"] | None = None
    """How an update reaches bf16 or fp16 weights, which are stepped as fp32 copies, some at a time.
    "split" keeps the 16 bits that a weight lacks as state, as if the weights were fp32.
    "stochastic" keeps nothing, and rounds up or down at random, right on average. None: the
    package's own way."""
    offload: Literal["cpu"] | None = None
    """Where the state is between steps: "cpu" is the host's memory. None: on the device."""


_SCALED = {"scale_parameter": True}
_RELATIVE = {"lr": None, "relative_step": True}


class AdafactorBase(Arguments):
    """Arguments of every Adafactor, with the defaults of Transformers' Trainer (5.23).

    The Trainer (`trainer_optimizer.py`) sets `lr`, `scale_parameter` and `relative_step` to 1e-3,
    False and False; the classes of Transformers and galore_torch default to None, True and True.
    """

    contrasts: ClassVar[Mapping[str, tuple[Contrast, ...]]] = {
        "eps": (
            Contrast(other={"eps": (0.5, 1e-3)}),
            Contrast(base=_SCALED, other={**_SCALED, "eps": (1e-30, 100.0)}),
        ),
        "relative_step": (Contrast(base={"lr": 1e-3}, other=_RELATIVE),),
        "warmup_init": (Contrast(base=_RELATIVE, other={**_RELATIVE, "warmup_init": True}),),
    }
    """The value for `OptimizerSpec.contrasts`."""
    lr: LearningRate | None = 1e-3
    """Learning rate; None with `relative_step`."""
    eps: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(ge=0)]] = (1e-30, 1e-3)
    """Added to the squared gradient, and the minimum root mean square of a weight that
    `scale_parameter` scales by."""
    clip_threshold: float = Field(default=1.0, gt=0)
    """Maximum root mean square of an update, before the learning rate is applied."""
    decay_rate: float = Field(default=-0.8, le=0)
    """Power of the step number in the decay rate of the running averages."""
    beta1: BetaOfGradient | None = None
    """Decay rate of the running average of updates; None keeps no average and saves its memory."""
    weight_decay: WeightDecay = 0.0
    scale_parameter: bool = False
    """Multiply the learning rate by the root mean square of the weight."""
    relative_step: bool = False
    """Compute the learning rate from the number of steps."""
    warmup_init: bool = False
    """Let the computed learning rate rise slowly from near zero."""

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
