"""What `lomo` and `adalomo` are and take. Imports neither torch nor lomo_optim."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from hub import backend
from hub.arguments import Eps, InBackward, LearningRate, WeightDecay
from hub.hookspecs import hookimpl
from hub.spec import Contrast, OptimizerSpec, Trait

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch.optim import Optimizer

    from hub.spec import BuildContext


class LomoArguments(InBackward):
    """Arguments of `lomo_optim.Lomo`."""

    lr: LearningRate = 1e-3
    weight_decay: WeightDecay = 0.0
    loss_scale: float | None = Field(default=2.0**10, ge=1)
    """fp16 weights only: what `fused_backward` multiplies the loss with at first. It is halved, and
    the step left out, where a gradient is infinite or not a number. None: no scaling."""
    loss_scale_window: int = Field(default=1000, ge=1)
    """Steps without such a gradient after which the loss scale is doubled."""


class AdaLomoArguments(LomoArguments):
    """Arguments of `lomo_optim.AdaLomo`."""

    eps: tuple[Eps, Eps] = (1e-30, 1e-3)
    """Added to the squared gradient, and the least root mean square that a weight counts as."""
    clip_threshold: float = Field(default=1.0, gt=0)
    """Largest root mean square of an update, before the learning rate."""
    decay_rate: float = Field(default=-0.8, le=0)
    """At step t, running averages of the squared gradient keep a share of 1 - t**decay_rate."""


_SCALING = ("loss_scale", "loss_scale_window")
_NOTES = (
    "loss.backward() updates with each group's lr; optimizer.step() ends the step.",
    "fused_backward(loss, lr) is one backward pass, with lr for the first group if given.",
    "clip_grad_norm is hub's max_grad_norm with clipping; upstream's own way is clipping='exact'.",
    "A gradient norm measured after the backward pass is real; clipping after it does nothing.",
    "fp16 weights need fused_backward, which scales the loss and runs two backward passes.",
    "GradScaler is refused: it would unscale gradients that are gone.",
    "Under Accelerate, which never calls step() of these classes, clearing gradients ends a step.",
)
_COMMON = {
    "traits": frozenset({Trait.PER_PARAMETER, Trait.STEPS_IN_BACKWARD}),
    "precisions": frozenset({"fp32", "fp64", "bf16", "bf16-mixed", "fp16"}),
    "package": "lomo-optim",
    "license": "MIT",
    "homepage": "https://github.com/OpenLMLab/LOMO",
    "without_effect": dict.fromkeys(_SCALING, "scales the loss of fp16 weights, to no effect"),
}

SPECS = (
    OptimizerSpec(
        name="lomo",
        summary="SGD inside the backward pass: without state, and without all gradients at once.",
        arguments=LomoArguments,
        paper="https://arxiv.org/abs/2306.09782",
        notes=_NOTES,
        **_COMMON,  # type: ignore[arg-type]  # mypy sees one type for all values
    ),
    OptimizerSpec(
        name="adalomo",
        summary="Adaptive rates from factored second moments, inside the backward pass.",
        arguments=AdaLomoArguments,
        per_group=frozenset({"lr", "weight_decay", "eps", "clip_threshold", "decay_rate"}),
        contrasts={
            "eps": (
                Contrast(other={"eps": (0.5, 1e-3)}),
                Contrast(other={"eps": (1e-30, 100.0)}),
            )
        },
        paper="https://arxiv.org/abs/2310.10195",
        notes=(
            *_NOTES,
            "lr is relative to each parameter's root mean square.",
            "Each parameter counts its own steps; upstream counts backward passes.",
            "Tensors of more than two dimensions are factored over the last two, as in Adafactor.",
        ),
        **_COMMON,  # type: ignore[arg-type]
    ),
)


@hookimpl
def hub_register_optimizers() -> Iterable[OptimizerSpec]:
    """Offer LOMO and AdaLomo."""
    return SPECS


@hookimpl
def hub_build_optimizer(
    name: str, optim_args: LomoArguments, context: BuildContext
) -> Optimizer | None:
    """Build one of them; hub's engine takes care of when it steps."""
    if all(spec.name != name for spec in SPECS):
        return None
    unscaled = () if "fp16" in context.precision.dtypes else _SCALING
    arguments = optim_args.model_dump(exclude={*InBackward.model_fields, *unscaled})
    factory = backend.load("hub_lomo.factory")
    optimizer: Optimizer = factory.build(name, context.param_groups(), arguments)
    return optimizer
