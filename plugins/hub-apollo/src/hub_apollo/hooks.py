"""APOLLO. Imports neither torch nor apollo_torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hub.backend import load_object
from hub.errors import OptimArgsError
from hub.hookspecs import hookimpl
from hub.spec import Contrast, Finding, OptimizerSpec, Trait
from hub.updates.findings import slow_refresh
from hub_apollo.arguments import APOLLOArguments, LowRankArguments

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch.nn import Parameter

    from hub.spec import BuildContext

    Targets = Sequence[tuple[str, Parameter, Mapping[str, Any]]]

_LOW_RANK = frozenset(LowRankArguments.model_fields)
_MINI = {"scale_type": "tensor"}
_SVD = {"proj": "svd"}

SPEC = OptimizerSpec(
    name="apollo_adamw",
    summary="AdamW with rates for target modules from low rank",
    factory="hub_apollo.factory:APOLLOAdamW",
    arguments=APOLLOArguments,
    low_rank=_LOW_RANK,
    traits=frozenset({Trait.LOW_RANK, Trait.PER_PARAMETER}),
    precisions=frozenset({"fp32", "fp64", "bf16", "bf16-mixed", "fp16-mixed"}),
    per_group=frozenset({"lr", "weight_decay", "betas", "eps", "correct_bias"}) | _LOW_RANK,
    example_arguments={"rank": 4, "update_proj_gap": 2},
    state_arguments=frozenset({"rank", "proj", "proj_type"}),
    contrasts={
        "projection": (Contrast(base=_SVD, other={**_SVD, "projection": "randomized"}),),
        # With so short a gap, some random projections are due in the same steps either way. Of an
        # SVD, each begins as a sketch.
        "refresh": (
            Contrast(other={"refresh": "staggered"}, some=True),
            Contrast(base=_SVD, other={**_SVD, "refresh": "staggered"}),
        ),
        "proj_type": (Contrast(base=_MINI, other={**_MINI, "proj_type": "reverse_std"}),),
        # The limiter is relative: the order of the two makes a difference in rounding only.
        "scale_front": (Contrast(base={"scale": 3.0}, other={"scale": 3.0, "scale_front": True}),),
    },
    known_failures={
        "names": "random projections follow from the names of the parameters, so that they do not "
        "depend on torch's random numbers"
    },
    package="apollo-torch",
    license="CC-BY-NC-4.0",
    paper="https://arxiv.org/abs/2412.05270",
    homepage="https://github.com/zhuhanqing/APOLLO",
    notes=(
        "apollo-torch is licensed CC BY-NC 4.0: not for commercial use.",
        "rank=1, scale=128, scale_type='tensor' is APOLLO-Mini.",
        "The projection defaults are those of Transformers' trainer; apollo-torch has none.",
        "A rank not below the smaller side of a target weight saves nothing, as the plan notes.",
        "no_deprecation_warning is left out: it only silences a message.",
        "proj_type='full' is left out: the package fails with it in its first or second step.",
        "Random projections follow from parameter names, not from torch's seed or group order.",
        "Checkpoints hold the seeds of random projections: another kind of device draws others.",
        "A gradient of zeros does not stop a weight for good, as it does in the package.",
        (
            "With proj='svd' a gradient with NaN or infinity makes the SVD fail, unless "
            "projection='randomized', which keeps the last projection."
        ),
        (
            "Steps parameters of equal shape together. On CPUs with MKL that rounds as the package "
            "does; elsewhere products of small matrices may differ in the last bit."
        ),
        "The first build takes seconds: apollo-torch imports transformers and bitsandbytes.",
    ),
)


@hookimpl
def hub_register_optimizers() -> Iterable[OptimizerSpec]:
    """Offer APOLLO."""
    return (SPEC,)


@hookimpl
def hub_validate_precision(context: BuildContext) -> Iterator[Finding]:
    """Note what an SVD costs, and refuse to project the side whose channels are scaled."""
    targets = [
        (name.removesuffix(".weight"), parameter, group.overrides)
        for group in context.groups
        if group.low_rank
        for name, parameter in group.parameters
    ]
    yield from slow_refresh(context)
    yield from _scaled_where_projected(targets)


def _scaled_where_projected(targets: Targets) -> Iterator[Finding]:
    """Refuse to project the larger side of a weight where its channels are scaled.

    apollo_torch 1.0.3 (apollo.py) multiplies the gradient by a factor for each projected direction
    then: an error or, where shapes happen to fit, nonsense.
    """
    for name, parameter, how in targets:
        rows, columns = parameter.shape
        projects_larger_side = how["proj_type"] == ("right" if rows < columns else "left")
        if how["scale_type"] == "channel" and projects_larger_side:
            yield Finding.refuse(
                OptimArgsError(
                    f"proj_type='{how['proj_type']}' projects the larger side of a "
                    f"{rows}x{columns} weight, whose channels scale_type='channel' scales",
                    where=name,
                    fix="use proj_type='std', or scale_type='tensor'",
                )
            )


@hookimpl
def hub_convert_state(state: Mapping[str, Any], group: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take the projector object out of one parameter's state."""
    plain: Mapping[str, Any] = load_object("hub_apollo.saved:converted_state")(state, group)
    return plain
