"""Prodigy. Imports neither torch nor prodigyopt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hub.hookspecs import hookimpl
from hub.spec import Contrast, OptimizerSpec
from hub_prodigy.arguments import ProdigyArguments

if TYPE_CHECKING:
    from collections.abc import Iterable

_GROWS = {"d_coef": 1000.0}
"""With this the estimate grows on random gradients, which never agree on a direction."""

_WARMS_UP = {"d_coef": 1e4, "lr": 0.5}


def _grown(**other: Any) -> tuple[Contrast, ...]:
    return (Contrast(base=_GROWS, other={**_GROWS, **other}),)


SPEC = OptimizerSpec(
    name="prodigy",
    summary="Adam with a step size that it estimates while training",
    factory="hub_prodigy.factory:Prodigy",
    arguments=ProdigyArguments,
    precisions=frozenset({"fp32", "fp64", "bf16", "bf16-mixed", "fp16-mixed"}),
    per_group=frozenset({"weight_decay", "eps"}),
    example_arguments={"lr": 1.0, "d0": 1e-2},
    contrasts={
        "beta3": _grown(beta3=0.5),
        "d_coef": (Contrast(other=_GROWS),),
        "growth_rate": _grown(growth_rate=1.02),
        "safeguard_warmup": (
            Contrast(base=_WARMS_UP, other={**_WARMS_UP, "safeguard_warmup": True}),
        ),
        "slice_p": _grown(slice_p=3),
    },
    step_counters=frozenset({"d", "d_max", "d_numerator", "d_denom", "d_hat", "k"}),
    why_not_layerwise="it estimates one step size from all parameters, before it updates any",
    why_not_sharded="its step size follows from sums over all parameters, which upstream adds up "
    "over ranks for FSDP1 on CUDA only (fsdp_in_use), and its step flattens each parameter, which "
    "DTensors of uneven shards do not allow",
    package="prodigyopt",
    license="MIT",
    paper="https://arxiv.org/abs/2306.06101",
    homepage="https://github.com/konstmish/prodigy",
    known_failures={
        "own_lr": "all groups have one step size: prodigyopt 1.1.2 raises where the learning rate "
        "of a group differs",
    },
    notes=(
        "Leave lr at 1, also where schedules lower it from there; d_coef is what to tune.",
        "Its step size is one for all parameters, so that rules cannot set lr or lr_scale.",
        "growth_rate does not limit the first growth from d0 (prodigyopt 1.1.2).",
        "Each step reads three sums of every parameter back from its device.",
    ),
)


@hookimpl
def hub_register_optimizers() -> Iterable[OptimizerSpec]:
    """Return the spec."""
    return [SPEC]
