"""The arguments that `grokadamw` takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_serializer

from hub.arguments import AdamLike, Search


class Signal(BaseModel):
    """A function in the arguments, which plans print by its name: they are plain data otherwise."""

    model_config = ConfigDict(frozen=True)

    function: Callable[[], float | None]

    def __call__(self) -> float | None:
        """Return what the function says."""
        return self.function()

    @model_serializer
    def __str__(self) -> str:
        function = self.function
        name = getattr(function, "__qualname__", type(function).__qualname__)
        return f"{getattr(function, '__module__', '')}.{name}"

    def __repr__(self) -> str:
        return str(self)


class GrokAdamWArguments(AdamLike):
    """Arguments of `grokadamw.GrokAdamW`."""

    alpha_init: Annotated[float, Field(ge=0, le=1), Search(0.9, 0.99, "linear")] = 0.98
    """Decay rate of the slow running average of the gradient, at a grokking signal of 0."""
    lamb: Annotated[float, Field(ge=0), Search(0.5, 5.0)] = 2.0
    """Factor on that average when it is added to the gradient."""
    gamma: float = Field(default=0.1, ge=0, le=1)
    """Share by which the first of the betas falls from each parameter of a group to the next. With
    0 all have the same."""
    grokking_signal_fns: tuple[Signal, ...] | None = Field(default=None, min_length=1)
    """Functions without arguments, called once a step, whose mean is the grokking signal: above 0
    while the model generalizes badly. In several processes they must return the same. None: the
    relative gap between `group["train_loss"]` and `group["eval_loss"]`, and 0 where they are not
    set. They are not in checkpoints."""
    grokking_signal_decay_rate: float = Field(default=0.1, ge=0)
    """How fast the slow average forgets when the signal is high: its decay rate is multiplied by
    exp(-grokking_signal_decay_rate * signal)."""
    gradient_clipping: float = Field(default=1.0, ge=0)
    """Maximum norm of each parameter's gradient, besides any clipping of the total norm by a
    trainer; 0 clips nothing."""

    @field_validator("grokking_signal_fns", mode="before")
    @classmethod
    def _names_functions(cls, value: Any) -> Any:
        if value is None:
            return None
        items = value if isinstance(value, tuple | list) else [value]
        if items is not value or not all(isinstance(i, Signal) or callable(i) for i in items):
            raise ValueError(
                "a list of functions, as a keyword of hub.build: they cannot be written as text"
            )
        return tuple(item if isinstance(item, Signal) else Signal(function=item) for item in items)
