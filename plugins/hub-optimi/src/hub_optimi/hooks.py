"""What `stable_adamw` is and takes. Imports neither torch nor optimi."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from hub import backend
from hub.arguments import Arguments, Betas, Eps, LearningRate, WeightDecay
from hub.hookspecs import hookimpl
from hub.spec import Contrast, Finding, Level, OptimizerSpec, Trait

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self

    from torch.optim import Optimizer

    from hub.spec import BuildContext, ParameterGroup


class StableAdamWArguments(Arguments):
    """Arguments of `optimi.StableAdamW`."""

    lr: LearningRate = 1e-3
    betas: Betas = (0.9, 0.99)
    weight_decay: WeightDecay = 1e-2
    eps: Eps = 1e-6
    decouple_lr: bool = False
    """Take weight_decay times the relative learning rate, lr / max_lr, off the weights, instead of
    weight_decay times lr; it then needs values about lr times as large."""
    max_lr: float | None = Field(default=None, gt=0)
    """Largest learning rate of the schedule, for decouple_lr; None: lr. A group whose lr is a
    multiple of lr has the same multiple of this."""
    kahan_sum: bool | None = None
    """Keep what rounding takes from the updates of bf16 weights, in one more tensor of their size;
    None: wherever weights are bf16."""
    foreach: bool | None = None
    """Update all tensors of a group at once, in fewer kernels; upstream will remove it. False, or
    None where triton cannot be used: one tensor at a time."""
    triton: bool | None = None
    """Use triton kernels; None: unless foreach is given, for groups whose tensors are all on GPUs
    with bf16."""

    @model_validator(mode="after")
    def _has_one_implementation(self) -> Self:
        if self.foreach and self.triton:
            raise ValueError("foreach=True cannot go with triton=True; leave one of them out")
        return self

    @model_validator(mode="after")
    def _decouples_from_a_learning_rate(self) -> Self:
        if self.max_lr is not None and not self.decouple_lr:
            raise ValueError("max_lr does nothing without decouple_lr=True; pass it, or no max_lr")
        if self.decouple_lr and self.max_lr is None and self.lr == 0:
            raise ValueError(
                "decouple_lr=True divides by max_lr, by default lr, which is 0; pass max_lr"
            )
        return self


SPEC = OptimizerSpec(
    name="stable_adamw",
    summary="AdamW that clips each tensor's update, with Kahan summation for bf16 weights.",
    arguments=StableAdamWArguments,
    traits=frozenset({Trait.PER_PARAMETER, Trait.COMPENSATED}),
    step_counters=frozenset({"setup", "step"}),
    precisions=frozenset({"fp32", "fp64", "bf16", "bf16-mixed", "fp16-mixed"}),
    per_group=frozenset({"lr", "weight_decay", "betas", "eps", "max_lr", "kahan_sum"}),
    contrasts={
        "max_lr": (
            Contrast(
                base={"decouple_lr": True}, other={"decouple_lr": True, "max_lr": 0.5}, some=True
            ),
        ),
    },
    without_effect={
        "kahan_sum": "what it keeps of bf16 updates shows after many steps only",
        "foreach": "chooses how the same update is computed",
        "triton": "needs a GPU, and computes the same update",
    },
    known_failures={
        "leaves_gradients-bf16": "step() uses the gradients of bf16 weights as scratch space: read "
        "norms before it"
    },
    package="torch-optimi",
    license="MIT",
    paper="https://arxiv.org/abs/2304.13013",
    homepage="https://optimi.benjaminwarner.dev",
    notes=(
        "lr=1e-3 is hub's: the class has no default.",
        "The defaults of betas and eps are optimi's, not torch's.",
        "Needs no clipping of gradients: each tensor's update is clipped.",
        "Kahan summation covers the updates of bf16 weights, not their weight decay.",
        "At lr 0 a bf16 weight may still move by one spacing: what the summation owes it.",
        "fp16 weights are refused: their second moments underflow, and updates explode.",
        "triton, or the loop in its place, is chosen on the parameters' device and at resume anew.",
        '`group["betas"]` is what counts, as in torch; optimi\'s beta1 and beta2 follow it.',
        "Bias correction counts a group's steps: parameters unfrozen later join at that count.",
        "gradient_release is left out: upstream's resumes with a learning rate that stays put.",
    ),
)

_LOST_DECAY = {"bf16": 2.0**-9, "fp16": 2.0**-12}
"""Shares of a weight that are at most half the distance to the next one below, whatever it is."""
_HIGH_DECOUPLED_DECAY = 1e-3
"""From here on optimi 0.3.3 warns (`optimi/optimizer.py`)."""


@hookimpl
def hub_register_optimizers() -> Iterable[OptimizerSpec]:
    """Offer StableAdamW."""
    return (SPEC,)


@hookimpl
def hub_validate_precision(
    name: str, optim_args: StableAdamWArguments, context: BuildContext
) -> Iterable[Finding]:
    """Refuse kernels where there are none, and warn of updates and decay that do nothing."""
    if name != SPEC.name:
        return
    yield from _triton_findings(optim_args, context)
    yield from _uncompensated(optim_args, context)
    decayed = [(group, _merged(optim_args, group)) for group in context.groups]
    decayed = [(group, arguments) for group, arguments in decayed if arguments.weight_decay]
    yield from _lost_decay(decayed)
    high = max((arguments.weight_decay for _, arguments in decayed), default=0.0)
    if optim_args.decouple_lr and high >= _HIGH_DECOUPLED_DECAY:
        yield Finding(
            level=Level.WARN,
            what=f"decouple_lr=True takes weight_decay={high:g} off the weights in every step, "
            "not multiplied by lr",
            fix=f"weight_decay={high * optim_args.lr:.2g} decays as much as without decouple_lr",
        )
    if optim_args.foreach:
        yield Finding(
            level=Level.NOTE,
            what="foreach=True is deprecated in optimi 0.3.3, in favour of triton",
        )


@hookimpl
def hub_build_optimizer(
    name: str, optim_args: StableAdamWArguments, context: BuildContext
) -> Optimizer | None:
    """Build StableAdamW."""
    if name != SPEC.name:
        return None
    factory = backend.load("hub_optimi.factory")
    optimizer: Optimizer = factory.build(context.param_groups(), optim_args.model_dump())
    return optimizer


def _merged(optim_args: StableAdamWArguments, group: ParameterGroup) -> StableAdamWArguments:
    return optim_args.model_copy(update=dict(group.overrides))


def _triton_findings(optim_args: StableAdamWArguments, context: BuildContext) -> Iterator[Finding]:
    if not optim_args.triton:
        return
    elsewhere = sorted(set(context.precision.devices) - {"cuda", "xpu", "meta"})
    reasons = [f"parameters are on {device}" for device in elsewhere]
    if "fp64" in context.precision.dtypes:
        reasons.append("its kernels compute in fp32, and parameters are fp64")
    if importlib.util.find_spec("triton") is None:
        reasons.append("the package triton is not installed")
    for reason in reasons:
        yield Finding(
            level=Level.REFUSE,
            what=f"triton=True cannot be used: {reason}",
            fix="leave triton out: it is used where it can be",
        )


def _uncompensated(optim_args: StableAdamWArguments, context: BuildContext) -> Iterator[Finding]:
    bare = [g for g in context.groups if _merged(optim_args, g).kahan_sum is False]
    if bare:
        yield Finding(
            level=Level.NOTE,
            what="kahan_sum=False: what rounding takes from bf16 weights is not kept",
            fix="leave kahan_sum out",
            without_traits=frozenset({Trait.COMPENSATED}),
        )


def _lost_decay(
    decayed: list[tuple[ParameterGroup, StableAdamWArguments]],
) -> Iterator[Finding]:
    """Warn where weight decay rounds to nothing, which Kahan summation does not prevent.

    optimi 0.3.3 multiplies the weights by it in their own dtype (`optimi/stableadamw.py`).
    """
    from hub.spec import dtype_name

    lost: dict[str, float] = {}
    for group, arguments in decayed:
        rate = 1.0 if arguments.decouple_lr else arguments.lr
        for dtype in {dtype_name(parameter.dtype) for _, parameter in group.parameters}:
            if 0 < rate * arguments.weight_decay < _LOST_DECAY.get(dtype, 0.0):
                lost[dtype] = max(lost.get(dtype, 0.0), rate * arguments.weight_decay)
    for dtype, share in sorted(lost.items()):
        yield Finding(
            level=Level.WARN,
            what=f"weight decay takes {share:.2g} off a weight in a step, and in {dtype} less "
            f"than {_LOST_DECAY[dtype]:.2g} rounds to nothing: there is no decay",
            fix="keep the weights in fp32 and train with precision='bf16-mixed', or pass "
            "weight_decay=0",
        )
