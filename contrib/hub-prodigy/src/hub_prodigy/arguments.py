"""The arguments that `prodigy` takes."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from hub.arguments import Arguments, Beta, Betas, Search


def _unbounded(value: Any) -> Any:
    """Return infinity for the word that text has for it."""
    return float("inf") if value == "inf" else value


class ProdigyArguments(Arguments):
    """Arguments of `prodigyopt.Prodigy`, but for `fsdp_in_use`."""

    lr: Annotated[float, Field(gt=0)] = 1.0
    """Factor on the step size that it estimates: leave it at 1, or let a schedule lower it."""
    betas: Betas = (0.9, 0.999)
    beta3: Beta | None = None
    """Decay rate of the sums that estimate the step size; None: the square root of betas[1]."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the denominator, multiplied by the estimate."""
    weight_decay: Annotated[float, Field(ge=0), Search(1e-3, 0.5)] = 0.0
    """Weight decay coefficient; decoupled, if `decouple` is."""
    decouple: bool = True
    """Decay the weights as AdamW does; otherwise add weight decay to the gradient."""
    use_bias_correction: bool = False
    """Correct the bias of the running averages, as Adam does."""
    safeguard_warmup: bool = False
    """Leave the learning rate out of the denominator of the estimate: for warm-up."""
    d0: Annotated[float, Field(gt=0)] = 1e-6
    """The first estimate of the step size."""
    d_coef: Annotated[float, Field(gt=0), Search(0.5, 2.0)] = 1.0
    """Factor on every later estimate: the argument to tune, between 0.5 and 2."""
    growth_rate: Annotated[float, Field(ge=1, allow_inf_nan=True), BeforeValidator(_unbounded)] = (
        float("inf")
    )
    """By which factor the estimate may grow in a step; inf: any."""
    slice_p: Annotated[int, Field(ge=1)] = 1
    """Estimate from every n-th element of each parameter, and keep two states for these only."""
