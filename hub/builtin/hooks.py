"""torch's optimizers and Adafactor: their specs, and what their plugin refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.builtin import findings
from hub.builtin.arguments import (
    AdafactorArguments,
    AdagradArguments,
    AdamWArguments,
    FusedAdamWArguments,
    RMSpropArguments,
    SGDArguments,
    TorchArguments,
)
from hub.hookspecs import hookimpl
from hub.spec import Contrast, OptimizerSpec, Sharding, Trait
from hub.updates.compiling import compiles

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel

    from hub.spec import BuildContext, Finding

SAME_UPDATE = {
    "foreach": "selects an implementation of the same update",
    "fused": "selects an implementation of the same update",
    "differentiable": "selects an implementation of the same update",
    "capturable": "requires parameters on an accelerator, and computes the same update",
    "compile": "computes the same update in one kernel",
    "state_dtype": "changes the state of fp32 weights only",
}
"""The arguments of torch's optimizers that change no update, and why."""


_AMSGRAD = {"betas": (0.9, 0.5), "amsgrad": True}
_CONTRASTS = {  # the maximum differs once the second moment falls
    "amsgrad": (Contrast(base={"betas": (0.9, 0.5)}, other=_AMSGRAD),),
}


def _spec(
    name: str,
    summary: str,
    factory: str,
    arguments: type[TorchArguments],
    per_group: set[str],
    paper: str = "",
    shares_state_with: str = "",
    example_arguments: dict[str, object] | None = None,
    notes: tuple[str, ...] = (),
) -> OptimizerSpec:
    fields = set(arguments.model_fields)
    return OptimizerSpec(
        name=name,
        summary=summary,
        factory=factory,
        arguments=arguments,
        traits=frozenset({Trait.PER_PARAMETER}),
        precisions=frozenset({"fp32", "fp64", "bf16", "bf16-mixed", "fp16-mixed"}),
        per_group=frozenset({"lr", "weight_decay", "eps", "maximize"} & fields) | per_group,
        paper=paper,
        shares_state_with=shares_state_with,
        sharding=Sharding(kind="native", elementwise=True),
        example_arguments=example_arguments or {},
        contrasts=_CONTRASTS if "amsgrad" in fields else {},
        without_effect={key: why for key, why in SAME_UPDATE.items() if key in fields},
        notes=notes,
    )


_DECOUPLED = "https://arxiv.org/abs/1711.05101"

SPECS = (
    _spec(
        "adamw_torch",
        "torch's AdamW",
        "hub.builtin.compiled:adamw",
        AdamWArguments,
        {"betas", "amsgrad"},
        _DECOUPLED,
    ),
    _spec(
        "adamw_torch_fused",
        "torch's AdamW in one fused kernel",
        "hub.builtin.narrow_state:fused_adamw",
        FusedAdamWArguments,
        {"betas", "amsgrad"},
        _DECOUPLED,
        shares_state_with="adamw_torch",
        notes=(
            "state_dtype='bf16' updates in fp32, and rounds the moments after each step.",
            "On a CPU, whose kernel refuses bf16 moments, it steps fp32 copies, in batches.",
        ),
    ),
    _spec(
        "sgd",
        "Stochastic gradient descent, optionally with momentum",
        "torch.optim:SGD",
        SGDArguments,
        {"momentum", "dampening", "nesterov"},
        example_arguments={"momentum": 0.9},  # without it there is no state to check
    ),
    _spec(
        "adagrad",
        "Rates that decay with the sum of squared gradients",
        "torch.optim:Adagrad",
        AdagradArguments,
        {"lr_decay"},
        "https://jmlr.org/papers/v12/duchi11a.html",
    ),
    _spec(
        "rmsprop",
        "Gradients divided by their running magnitude",
        "hub.builtin.capturable:rmsprop",
        RMSpropArguments,
        {"alpha", "momentum", "centered"},
        "https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf",
    ),
    OptimizerSpec(
        name="adafactor",
        summary="Second moments factored into rows and columns",
        factory="hub.builtin.adafactor:Adafactor",
        arguments=AdafactorArguments,
        traits=frozenset({Trait.PER_PARAMETER}),
        precisions=frozenset({"fp32", "fp64", "bf16", "fp16", "bf16-mixed", "fp16-mixed"}),
        per_group=frozenset(AdafactorArguments.model_fields) - {"foreach"},
        contrasts=AdafactorArguments.contrasts,
        without_effect={"foreach": SAME_UPDATE["foreach"]},
        package="hub",
        license="Apache-2.0",
        paper="https://arxiv.org/abs/1804.04235",
        homepage="https://huggingface.co/docs/transformers/main_classes/optimizer_schedules",
        notes=(
            "Equals transformers.Adafactor with the arguments that the Trainer passes.",
            "relative_step=True requires lr=None, and works only with the 'adafactor' schedule.",
            "Moments are fp32 even for bf16 and fp16 weights, also in checkpoints.",
        ),
    ),
)


@hookimpl
def hub_register_optimizers() -> Iterable[OptimizerSpec]:
    """Offer torch's optimizers and Adafactor."""
    return SPECS


@hookimpl
def hub_validate_precision(
    name: str, optim_args: BaseModel, context: BuildContext
) -> list[Finding]:
    """Refuse what torch's step would not do, and choose the implementation for DTensors."""
    return [
        *findings.fused_slices(optim_args, context),
        *findings.capturable(optim_args, context),
        *findings.sharded(name, optim_args, context),
        *findings.narrow_state(optim_args, context),
        *compiles(name, optim_args, context),
    ]
