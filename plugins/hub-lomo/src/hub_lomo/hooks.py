"""LOMO and AdaLomo. Imports neither torch nor lomo_optim."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.hookspecs import hookimpl
from hub.spec import Contrast, OptimizerSpec, Sharding, Trait
from hub_lomo.arguments import AdaLomoArguments, LomoArguments

if TYPE_CHECKING:
    from collections.abc import Iterable

_NOTES = (
    "loss.backward() updates with each group's lr; optimizer.step() ends the step.",
    "fused_backward(loss, lr) is one backward pass, with lr for the first group if given.",
    "Upstream's clip_grad_norm is max_grad_norm here, with clipping='exact' for upstream's way.",
    "Gradient norms measured after the backward pass are real; clipping then has no effect.",
    "fp16 weights need fused_backward, which scales the loss and runs two backward passes.",
    "GradScaler is refused: it would unscale gradients that have already been freed.",
    "Accelerate never calls step() of these classes: there clearing gradients ends a step.",
)
_COMMON = {
    "traits": frozenset({Trait.PER_PARAMETER, Trait.STEPS_IN_BACKWARD}),
    "precisions": frozenset({"fp32", "fp64", "bf16", "bf16-mixed", "fp16"}),
    "package": "lomo-optim",
    "license": "MIT",
    "homepage": "https://github.com/OpenLMLab/LOMO",
    "without_effect": dict.fromkeys(
        ("loss_scale", "loss_scale_window"), "scales the loss of fp16 weights, and unscales it"
    ),
}

SPECS = (
    OptimizerSpec(
        name="lomo",
        summary="SGD inside the backward pass, without state",
        factory="hub_lomo.factory:Lomo",
        arguments=LomoArguments,
        sharding=Sharding(kind="native", elementwise=True),
        paper="https://arxiv.org/abs/2306.09782",
        notes=_NOTES,
        **_COMMON,  # type: ignore[arg-type]  # mypy sees one type for all values
    ),
    OptimizerSpec(
        name="adalomo",
        summary="Factored adaptive rates, inside the backward pass",
        factory="hub_lomo.factory:AdaLomo",
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
            "Each parameter counts its steps; upstream counts backward passes.",
            "Tensors of more than two dimensions are factored over the last two, as in Adafactor.",
        ),
        **_COMMON,  # type: ignore[arg-type]
    ),
)


@hookimpl
def hub_register_optimizers() -> Iterable[OptimizerSpec]:
    """Offer LOMO and AdaLomo."""
    return SPECS
