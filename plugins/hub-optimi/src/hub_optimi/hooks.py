"""StableAdamW. Imports neither torch nor optimi."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from hub.errors import PrecisionError
from hub.hookspecs import hookimpl
from hub.spec import Contrast, Finding, OptimizerSpec, Trait, dtype_name
from hub_optimi.arguments import StableAdamWArguments

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hub.spec import BuildContext, ParameterGroup

SPEC = OptimizerSpec(
    name="stable_adamw",
    summary="AdamW that clips each tensor's update",
    factory="hub_optimi.factory:StableAdamW",
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
    package="torch-optimi",
    license="MIT",
    paper="https://arxiv.org/abs/2304.13013",
    homepage="https://optimi.benjaminwarner.dev",
    notes=(
        "lr=1e-3 is hub's: the upstream class has no default.",
        "The defaults of betas and eps are optimi's, not torch's.",
        "Needs no gradient clipping: each tensor's update is clipped.",
        "Kahan summation covers the updates of bf16 weights, not their weight decay.",
        "At lr 0 a bf16 weight may still move by one spacing, which the summation owes it.",
        "fp16 weights are refused: their second moments underflow, and updates explode.",
        "Whether triton is used is decided by the parameters' device, and again at resume.",
        "group['betas'] counts, as in torch; optimi's beta1 and beta2 follow it.",
        "Bias correction counts a group's steps: parameters unfrozen later join at that count.",
        "gradient_release is left out: upstream's resumes with a learning rate that never changes.",
    ),
)

_LOST_DECAY = {"bf16": 2.0**-9, "fp16": 2.0**-12}
"""Shares of a weight that never exceed half the distance to the next number below it."""
_HIGH_DECOUPLED_DECAY = 1e-3
"""optimi 0.3.3 warns from here on (`optimi/optimizer.py`)."""


@hookimpl
def hub_register_optimizers() -> Iterable[OptimizerSpec]:
    """Offer StableAdamW."""
    return (SPEC,)


@hookimpl
def hub_validate_precision(
    optim_args: StableAdamWArguments, context: BuildContext
) -> Iterator[Finding]:
    """Refuse kernels where none run, and report updates and decay without effect."""
    groups = [(optim_args.model_copy(update=dict(g.overrides)), g) for g in context.groups]
    if optim_args.triton:
        yield from _without_triton(context)
    if any(arguments.kahan_sum is False for arguments, _ in groups):
        yield Finding.note(
            "kahan_sum=False: what rounding takes from bf16 weights is not kept",
            "leave kahan_sum out",
            without_traits=frozenset({Trait.COMPENSATED}),
        )
    yield from _lost_decay(groups)
    high = max(arguments.weight_decay for arguments, _ in groups)
    if optim_args.decouple_lr and high >= _HIGH_DECOUPLED_DECAY:
        yield Finding.warn(
            f"decouple_lr=True shrinks the weights by weight_decay={high:g} in every step, not "
            "multiplied by lr",
            f"weight_decay={high * optim_args.lr:.2g} decays as much as without decouple_lr",
        )
    if optim_args.foreach:
        yield Finding.note("foreach=True is deprecated in optimi 0.3.3, in favor of triton")


def _without_triton(context: BuildContext) -> Iterator[Finding]:
    elsewhere = sorted(set(context.precision.devices) - {"cuda", "xpu", "meta"})
    reasons = [f"parameters are on {device}" for device in elsewhere]
    if "fp64" in context.precision.dtypes:
        reasons.append("its kernels compute in fp32, and parameters are fp64")
    if importlib.util.find_spec("triton") is None:
        reasons.append("the package triton is not installed")
    for reason in reasons:
        yield Finding.refuse(
            PrecisionError(
                f"triton=True cannot be used: {reason}",
                fix="leave triton out: it is used where it can be",
            )
        )


def _lost_decay(groups: list[tuple[StableAdamWArguments, ParameterGroup]]) -> Iterator[Finding]:
    """Warn where weight decay rounds to zero, which Kahan summation does not prevent.

    optimi 0.3.3 multiplies the weights by it in their own dtype (`optimi/stableadamw.py`).
    """
    lost: dict[str, float] = {}
    for arguments, group in groups:
        share = arguments.weight_decay * (1.0 if arguments.decouple_lr else arguments.lr)
        for dtype in {dtype_name(parameter.dtype) for _, parameter in group.parameters}:
            if 0 < share < _LOST_DECAY.get(dtype, 0.0):
                lost[dtype] = max(lost.get(dtype, 0.0), share)
    for dtype, share in sorted(lost.items()):
        yield Finding.warn(
            f"weight decay shrinks weights by {share:.2g} in a step, and in {dtype} less than "
            f"{_LOST_DECAY[dtype]:.2g} rounds to zero: there is no decay",
            "keep the weights in fp32 and train with precision='bf16-mixed', or pass "
            "weight_decay=0",
        )
