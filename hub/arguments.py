"""Building blocks for the typed arguments of optimizers and schedules (pydantic)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field


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
    """What every optimizer takes that steps inside the backward pass; see `hub.layerwise`."""

    elsewhere = {"clip_grad_norm": "max_grad_norm of hub.build, and clipping"}
    clipping: Literal["exact", "previous_norm", "per_parameter"] | None = None
    """How `max_grad_norm` is kept. "exact": by a backward pass of its own before each step's,
    `hub.grad_norm(optimizer, loss)`. "previous_norm": by the gradient norm of the step before, an
    approximation. "per_parameter": each parameter's gradient has at most that norm."""
    clip_grad_value: float | None = Field(default=None, gt=0)
    """Clip every element of the gradient to this magnitude, before `max_grad_norm`."""
