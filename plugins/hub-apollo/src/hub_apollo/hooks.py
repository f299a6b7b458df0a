"""What `apollo_adamw` is and takes. Imports neither torch nor apollo_torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from hub import backend
from hub.arguments import Arguments, Betas, Eps, LearningRate, WeightDecay
from hub.errors import OptimArgsError
from hub.hookspecs import hookimpl
from hub.spec import Contrast, Finding, OptimizerSpec, Trait

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Self

    from torch.nn import Parameter
    from torch.optim import Optimizer

    from hub.spec import BuildContext

PLUGIN = "hub-apollo"


class LowRankArguments(Arguments):
    """How the gradients of the target modules are projected, and scaled by what that shows.

    apollo_torch 1.0.3 reads these from the group and has no defaults for them; these are the ones
    of Transformers' integration (5.23, `trainer_optimizer.py`).
    """

    rank: PositiveInt = 128
    """Number of directions that the gradient of a target weight is projected onto. A quarter of the
    weight's smaller side is usual; 1 is APOLLO-Mini. From that side on the state is not low-rank,
    and with proj="random" above it larger than AdamW's."""
    update_proj_gap: PositiveInt = 200
    """Number of steps between two projections."""
    scale: float = Field(default=1.0, gt=0)
    """Its square root is a factor on the updates of target weights, on top of the learning rate.
    It makes up for a small rank: 128 is usual for APOLLO-Mini."""
    proj: Literal["random", "svd"] = "random"
    """What the projection is made of: random numbers, which cost nothing, or the singular vectors
    of the gradient."""
    proj_type: Literal["std", "reverse_std", "right", "left"] = "std"
    """Which side is projected: the smaller one (std), the larger one (reverse_std), or always the
    columns (right) or the rows (left)."""
    scale_type: Literal["channel", "tensor"] = "channel"
    """Whether each channel of the larger side of a weight has a learning rate of its own, or the
    weight has one (tensor), as in APOLLO-Mini."""

    @model_validator(mode="after")
    def _leaves_channels_to_scale(self) -> Self:
        if self.scale_type == "channel" and self.proj_type == "reverse_std":
            message = (
                "proj_type='reverse_std' projects the channels that scale_type='channel' scales; "
                "use proj_type='std', or scale_type='tensor'"
            )
            raise ValueError(message)
        return self


class APOLLOArguments(LowRankArguments):
    """Arguments of `apollo_torch.APOLLOAdamW`."""

    lr: LearningRate = 1e-3
    betas: Betas = (0.9, 0.999)
    eps: Eps = 1e-6
    weight_decay: WeightDecay = 0.0
    correct_bias: bool = True
    """Correct the running averages for their start at zero; the first BERT did not."""
    scale_front: bool = False
    """Apply `scale` before the growth of the update's norm is limited, instead of after: for runs
    with a short warm-up."""
    disable_nl: bool = False
    """Do not limit the growth of the update's norm, else 1 % a step for each target weight."""


_LOW_RANK = frozenset(LowRankArguments.model_fields)
_MINI = {"scale_type": "tensor"}

SPEC = OptimizerSpec(
    name="apollo_adamw",
    summary="AdamW whose learning rates for the target modules come from a low-rank state.",
    arguments=APOLLOArguments,
    traits=frozenset({Trait.LOW_RANK, Trait.PER_PARAMETER}),
    precisions=frozenset({"fp32", "fp64", "bf16", "bf16-mixed", "fp16-mixed"}),
    per_group=frozenset({"lr", "weight_decay", "betas", "eps", "correct_bias"}) | _LOW_RANK,
    example_arguments={"rank": 4, "update_proj_gap": 2},
    state_arguments=frozenset({"rank", "proj", "proj_type"}),
    contrasts={
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
        (
            "rank=128, update_proj_gap=200, scale=1.0, proj='random', proj_type='std' and "
            "scale_type='channel' are the defaults of Transformers' trainer (its documentation has "
            "rank 256); the package has none."
        ),
        (
            "A rank from the smaller side of a target weight on costs memory and gains nothing, "
            "which the plan notes; param_rules can set another one for some."
        ),
        (
            "Not among the arguments: no_deprecation_warning, which only silences a message, and "
            "proj_type='full', with which the package fails in its first or second step."
        ),
        (
            "Random projections follow from the names of the parameters, whatever torch's seed, "
            "the order of groups and the number of processes are."
        ),
        (
            "A checkpoint holds the seeds of random projections, not their matrices: resumed on "
            "another kind of device, they are drawn anew, as they are all update_proj_gap steps."
        ),
        "A gradient of zeros does not stop a weight for good, as it does in the package.",
        "With proj='svd' a gradient with NaN or infinity fails in the SVD instead of spreading.",
        "The first build takes seconds: apollo-torch imports transformers and bitsandbytes.",
    ),
)


@hookimpl
def hub_register_optimizers() -> Iterable[OptimizerSpec]:
    """Offer APOLLO."""
    return (SPEC,)


@hookimpl
def hub_build_optimizer(
    name: str, optim_args: LowRankArguments, context: BuildContext
) -> Optimizer | None:
    """Build it."""
    if name != SPEC.name:
        return None
    low_rank = optim_args.model_dump(include=set(_LOW_RANK))
    arguments = optim_args.model_dump(exclude=set(low_rank))
    factory = backend.load("hub_apollo.factory")
    optimizer: Optimizer = factory.build(_param_groups(context, low_rank), arguments)
    return optimizer


def _param_groups(context: BuildContext, low_rank: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the groups: low-rank ones with all low-rank keys, a rule's first, others with none.

    apollo_torch 1.0.3 takes any group with `rank` for a low-rank one.
    """
    groups = context.param_groups()
    for planned, group in zip(context.groups, groups, strict=True):
        for key, value in low_rank.items():
            if planned.low_rank:
                group.setdefault(key, value)
            else:
                group.pop(key, None)
    return groups


def _targets(
    context: BuildContext, low_rank: Mapping[str, Any]
) -> Iterator[tuple[str, Parameter, dict[str, Any]]]:
    """Yield the name and weight of each target, and how it is projected."""
    for group in context.groups:
        if group.low_rank:
            for name, parameter in group.parameters:
                yield name.removesuffix(".weight"), parameter, {**low_rank, **group.overrides}


@hookimpl
def hub_validate_precision(
    name: str, optim_args: LowRankArguments, context: BuildContext
) -> Iterator[Finding]:
    """Refuse what would fail in the first step, and rules that would do nothing."""
    if name == SPEC.name:
        yield from _rules_without_targets(context)
        low_rank = optim_args.model_dump(include=set(_LOW_RANK))
        yield from _sides_without_channels(context, low_rank)


def _rules_without_targets(context: BuildContext) -> Iterator[Finding]:
    used = [group.overrides for group in context.groups if group.low_rank]
    for group in context.groups:
        idle = {key: value for key, value in group.overrides.items() if key in _LOW_RANK}
        if idle and not any(idle.items() <= overrides.items() for overrides in used):
            yield Finding.refusal(
                OptimArgsError(
                    f"{', '.join(idle)} cannot be set for parameters that are not projected",
                    where=f"param_rules, group '{group.name}'",
                    fix="match weights of target modules, or leave it out of the rule",
                )
            )


def _sides_without_channels(
    context: BuildContext, low_rank: Mapping[str, Any]
) -> Iterator[Finding]:
    """Refuse to project the larger side, whose channels are scaled.

    apollo_torch 1.0.3 (apollo.py) multiplies the gradient by a factor for each projected direction
    then: an error or, where shapes happen to fit, nonsense.
    """
    for name, parameter, how in _targets(context, low_rank):
        rows, columns = parameter.shape
        projects_larger_side = how["proj_type"] == ("right" if rows < columns else "left")
        if how["scale_type"] == "channel" and projects_larger_side:
            yield Finding.refusal(
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
    factory = backend.load("hub_apollo.factory")
    plain: Mapping[str, Any] = factory.converted(state, group)
    return plain
