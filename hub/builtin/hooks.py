"""torch's own optimizers, and Adafactor: their names and typed arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from hub.arguments import Arguments, Betas, Eps, LearningRate, WeightDecay
from hub.builtin.arguments import AdafactorArguments
from hub.errors import UnsupportedError
from hub.hookspecs import hookimpl
from hub.spec import Contrast, Finding, OptimizerSpec, Trait

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import BaseModel
    from torch.nn import Module
    from torch.optim import Optimizer

    from hub.spec import BuildContext

NonNegative = Annotated[float, Field(ge=0)]
_SAME_UPDATE = {
    "foreach": "chooses how the same update is computed",
    "fused": "chooses how the same update is computed",
    "differentiable": "chooses how the same update is computed",
    "capturable": "needs parameters on the accelerator, and computes the same update",
}


class TorchArguments(Arguments):
    """What all of torch's optimizers take; defaults as in torch 2.13."""

    foreach: bool | None = None
    """Use the multi-tensor implementation; None: where torch thinks it is faster."""
    maximize: bool = False
    """Maximize the objective instead of minimizing it."""
    differentiable: bool = False
    """Let autograd run through the step; cannot go with foreach."""


class Fused(TorchArguments):
    """Arguments of the optimizers that have a fused implementation."""

    fused: bool | None = None
    """Use the fused implementation; None: where torch thinks it is faster."""

    @model_validator(mode="after")
    def _one_implementation(self) -> Self:
        if self.fused and (self.foreach or self.differentiable):
            raise ValueError("fused=True cannot go with foreach=True or differentiable=True")
        return self


class AdamWArguments(Fused):
    """Arguments of `torch.optim.AdamW`."""

    lr: LearningRate = 1e-3
    betas: Betas = (0.9, 0.999)
    eps: Eps = 1e-8
    weight_decay: WeightDecay = 1e-2
    amsgrad: bool = False
    """Use the maximum of all past second moments (https://arxiv.org/abs/1904.09237)."""
    capturable: bool = False
    """Make the step safe to capture in a CUDA graph; needs parameters on the accelerator."""


class FusedAdamWArguments(AdamWArguments):
    """Arguments of `torch.optim.AdamW` with its fused implementation."""

    fused: bool | None = True
    """Use the fused implementation."""


class SGDArguments(Fused):
    """Arguments of `torch.optim.SGD`."""

    lr: LearningRate = 1e-3
    momentum: NonNegative = 0.0
    """Momentum factor."""
    dampening: float = 0.0
    """Dampening of the momentum."""
    weight_decay: Annotated[WeightDecay, Field(description="L2 penalty.")] = 0.0
    nesterov: bool = False
    """Nesterov momentum; needs momentum and no dampening."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and (self.momentum <= 0 or self.dampening != 0):
            raise ValueError("nesterov=True needs momentum above 0 and dampening=0")
        return self


class AdagradArguments(Fused):
    """Arguments of `torch.optim.Adagrad`."""

    lr: LearningRate = 1e-2
    lr_decay: NonNegative = 0.0
    """Decay of the learning rate per step."""
    weight_decay: Annotated[WeightDecay, Field(description="L2 penalty.")] = 0.0
    initial_accumulator_value: NonNegative = 0.0
    """What the sums of squared gradients start from."""
    eps: Eps = 1e-10


class RMSpropArguments(TorchArguments):
    """Arguments of `torch.optim.RMSprop`."""

    lr: LearningRate = 1e-2
    alpha: NonNegative = 0.99
    """Smoothing constant of the running average of squared gradients."""
    eps: Eps = 1e-8
    weight_decay: Annotated[WeightDecay, Field(description="L2 penalty.")] = 0.0
    momentum: NonNegative = 0.0
    """Momentum factor."""
    centered: bool = False
    """Normalise by the estimated variance of the gradient."""
    capturable: bool = False
    """Make the step safe to capture in a CUDA graph; needs parameters on the accelerator."""


def _spec(
    name: str,
    summary: str,
    arguments: type[Arguments],
    per_group: set[str],
    paper: str = "",
    shares_state_with: str = "",
    example_arguments: dict[str, object] | None = None,
) -> OptimizerSpec:
    return OptimizerSpec(
        name=name,
        summary=summary,
        arguments=arguments,
        traits=frozenset({Trait.PER_PARAMETER}),
        precisions=frozenset({"fp32", "fp64", "bf16", "bf16-mixed", "fp16-mixed"}),
        per_group=frozenset({"lr", "weight_decay", "eps", "maximize"} & set(arguments.model_fields))
        | per_group,
        paper=paper,
        shares_state_with=shares_state_with,
        example_arguments=example_arguments or {},
        contrasts=_CONTRASTS if "amsgrad" in arguments.model_fields else {},
        without_effect={
            key: why for key, why in _SAME_UPDATE.items() if key in arguments.model_fields
        },
    )


_CONTRASTS = {  # the maximum differs once the second moment falls
    "amsgrad": (
        Contrast(base={"betas": (0.9, 0.5)}, other={"betas": (0.9, 0.5), "amsgrad": True}),
    ),
}
_RELATIVE = {"lr": None, "relative_step": True}
_SCALED = {"scale_parameter": True}

_ADAFACTOR = OptimizerSpec(
    name="adafactor",
    summary="Second moments as a row and a column of each matrix, at next to no memory",
    arguments=AdafactorArguments,
    traits=frozenset({Trait.PER_PARAMETER}),
    precisions=frozenset({"fp32", "fp64", "bf16", "fp16", "bf16-mixed", "fp16-mixed"}),
    per_group=frozenset(AdafactorArguments.model_fields) - {"foreach"},
    contrasts={
        "eps": (
            Contrast(other={"eps": (0.5, 1e-3)}),
            Contrast(base=_SCALED, other={**_SCALED, "eps": (1e-30, 100.0)}),
        ),
        "relative_step": (Contrast(base={"lr": 1e-3}, other=_RELATIVE),),
        "warmup_init": (Contrast(base=_RELATIVE, other={**_RELATIVE, "warmup_init": True}),),
    },
    without_effect={"foreach": _SAME_UPDATE["foreach"]},
    package="hub",
    license="Apache-2.0",
    paper="https://arxiv.org/abs/1804.04235",
    homepage="https://huggingface.co/docs/transformers/main_classes/optimizer_schedules",
    notes=(
        "Equal to transformers.Adafactor with the arguments that its Trainer gives it.",
        "With relative_step=True the only schedule is 'adafactor', and lr reads None.",
        "Keeps fp32 moments for bf16 and fp16 weights too, also through a checkpoint.",
    ),
)


@hookimpl
def hub_register_optimizers() -> list[OptimizerSpec]:
    """Return torch's optimizers and Adafactor."""
    decoupled = "https://arxiv.org/abs/1711.05101"
    return [
        _spec(
            "adamw_torch",
            "Adam with decoupled weight decay, torch's implementation",
            AdamWArguments,
            {"betas", "amsgrad"},
            decoupled,
        ),
        _spec(
            "adamw_torch_fused",
            "Adam with decoupled weight decay, torch's fused implementation",
            FusedAdamWArguments,
            {"betas", "amsgrad"},
            decoupled,
            shares_state_with="adamw_torch",
        ),
        _spec(
            "sgd",
            "Stochastic gradient descent, with momentum if asked for",
            SGDArguments,
            {"momentum", "dampening", "nesterov"},
            example_arguments={"momentum": 0.9},  # without it there is no state to check
        ),
        _spec(
            "adagrad",
            "Learning rates that fall with the sum of squared gradients",
            AdagradArguments,
            {"lr_decay"},
            "https://jmlr.org/papers/v12/duchi11a.html",
        ),
        _spec(
            "rmsprop",
            "Gradients divided by a running average of their magnitude",
            RMSpropArguments,
            {"alpha", "momentum", "centered"},
            "https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf",
        ),
        _ADAFACTOR,
    ]


@hookimpl
def hub_validate_precision(optim_args: BaseModel, context: BuildContext) -> Iterator[Finding]:
    """Refuse the fused update of a slice, of which torch (2.13) writes the gaps as well.

    Its kernels walk over as many elements as the parameter has, whatever its strides are.
    """
    if not getattr(optim_args, "fused", None):
        return
    for name, parameter in context.named_parameters():
        last = sum(
            (n - 1) * step for n, step in zip(parameter.shape, parameter.stride(), strict=True)
        )
        if last >= parameter.numel() > 0:
            yield Finding.refusal(
                UnsupportedError(
                    f"{name} is a slice of a larger tensor, which torch's fused update would write "
                    "outside of it",
                    where=name,
                    fix="use fused=False, or give the parameter memory of its own",
                )
            )


@hookimpl
def hub_build_optimizer(
    name: str,
    optim_args: BaseModel,
    target_modules: Mapping[str, Module],  # noqa: ARG001 - none of these has low-rank groups
    context: BuildContext,
) -> Optimizer:
    """Build one of the optimizers."""
    from torch import optim

    from hub.builtin.adafactor import Adafactor

    classes: dict[str, type[Optimizer]] = {
        "adamw_torch": optim.AdamW,
        "adamw_torch_fused": optim.AdamW,
        "sgd": optim.SGD,
        "adagrad": optim.Adagrad,
        "rmsprop": optim.RMSprop,
        "adafactor": Adafactor,
    }
    return classes[name](context.param_groups(), **optim_args.model_dump())
