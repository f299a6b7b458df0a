"""Building blocks for the typed arguments of optimizers and schedules (pydantic)."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Arguments(BaseModel):
    """A convenient base for arguments models: frozen, closed, and without inf or nan.

    Any pydantic model serves as the `arguments` of a spec; hub itself refuses unknown keys.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


LearningRate = Annotated[float, Field(ge=0, description="Learning rate.")]
WeightDecay = Annotated[float, Field(ge=0, description="Decoupled weight decay coefficient.")]
Beta = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[
    tuple[Beta, Beta],
    Field(description="Decay rates of the running averages of the gradient and of its square."),
]
Eps = Annotated[float, Field(ge=0, description="Added to the denominator for stability.")]
