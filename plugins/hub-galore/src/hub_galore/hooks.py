"""What the GaLore names are and take. Imports neither torch nor galore_torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveInt

from hub import backend
from hub.arguments import AdafactorBase, Arguments, Betas, Eps, LearningRate, WeightDecay
from hub.errors import OptimArgsError, UnsupportedError
from hub.hookspecs import hookimpl
from hub.spec import Contrast, Finding, OptimizerSpec, Trait

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch.optim import Optimizer

    from hub.spec import BuildContext


class LowRankArguments(Arguments):
    """How the gradients of the target modules are projected.

    galore_torch 1.0 reads these from the group and has no defaults for them; these are the ones
    of Transformers' integration (5.23, `trainer_optimizer.py`).
    """

    rank: PositiveInt = 128
    """Number of singular directions that the gradient of a target weight is projected onto. Above
    the weight's smaller side all of them are kept, which saves no memory."""
    update_proj_gap: PositiveInt = 200
    """Number of steps between two computations of the projection, each one SVD a target weight."""
    scale: float = Field(default=0.25, gt=0)
    """Factor on the updates of target weights, on top of the learning rate."""
    proj_type: Literal["std", "reverse_std", "right", "left", "full"] = "std"
    """Which side is projected: the smaller one (std), the larger one (reverse_std), always the
    columns (right) or the rows (left), or both (full)."""


class AdamWArguments(LowRankArguments):
    """Arguments of `galore_torch.GaLoreAdamW`."""

    lr: LearningRate = 1e-3
    betas: Betas = (0.9, 0.999)
    eps: Eps = 1e-6
    weight_decay: WeightDecay = 0.0
    correct_bias: bool = True
    """Correct the running averages for their start at zero; the first BERT did not."""


class AdamW8bitArguments(LowRankArguments):
    """Arguments of `galore_torch.GaLoreAdamW8bit`."""

    lr: LearningRate = 1e-3
    betas: Betas = (0.9, 0.999)
    eps: Eps = 1e-8
    weight_decay: WeightDecay = 1e-2
    min_8bit_size: int = Field(default=4096, ge=0)
    """Tensors of fewer elements keep 32-bit state; for target weights the projected size counts."""


class AdafactorArguments(LowRankArguments, AdafactorBase):
    """Arguments of `galore_torch.GaLoreAdafactor`."""


_RELATIVE = {"lr": None, "relative_step": True}
_SCALED = {"scale_parameter": True}
_ADAFACTOR_CONTRASTS = {
    "eps": (
        Contrast(other={"eps": (0.5, 1e-3)}),
        Contrast(base=_SCALED, other={**_SCALED, "eps": (1e-30, 100.0)}),
    ),
    "relative_step": (Contrast(base={"lr": 1e-3}, other=_RELATIVE),),
    "warmup_init": (Contrast(base=_RELATIVE, other={**_RELATIVE, "warmup_init": True}),),
}
_MODES = frozenset({"fp32", "bf16", "bf16-mixed", "fp16-mixed"})
_NOTES = (
    "Every update_proj_gap steps all projections are computed again: that step is slow.",
    "A gradient with NaN or infinity fails in the SVD of such a step instead of spreading.",
)


def _spec(
    name: str,
    summary: str,
    arguments: type[LowRankArguments],
    *notes: str,
    per_group: frozenset[str] = frozenset({"lr", "weight_decay", "betas", "eps"}),
    modes: frozenset[str] = _MODES,
    contrasts: Mapping[str, tuple[Contrast, ...]] | None = None,
) -> OptimizerSpec:
    return OptimizerSpec(
        name=name,
        summary=summary,
        arguments=arguments,
        traits=frozenset({Trait.LOW_RANK, Trait.PER_PARAMETER}),
        precisions=modes,
        per_group=per_group,
        example_arguments={"rank": 4, "update_proj_gap": 2},
        state_arguments=frozenset({"rank", "proj_type"}),
        contrasts=contrasts or {},
        package="galore-torch",
        license="Apache-2.0",
        paper="https://arxiv.org/abs/2403.03507",
        homepage="https://github.com/jiaweizzhao/GaLore",
        notes=notes + _NOTES,
    )


SPECS = (
    _spec(
        "galore_adamw",
        "AdamW whose state for the target modules is low-rank.",
        AdamWArguments,
    ),
    _spec(
        "galore_adamw_8bit",
        "AdamW whose state for the target modules is low-rank and kept in 8 bits.",
        AdamW8bitArguments,
        "Trains on CPU too, where the bare class fails, and trains the small and zero tensors.",
        modes=_MODES | {"fp16"},
    ),
    _spec(
        "galore_adafactor",
        "Adafactor whose state for the target modules is low-rank.",
        AdafactorArguments,
        "lr=1e-3, scale_parameter=False and relative_step=False are the defaults of Transformers' "
        "trainer for this name; the class has None, True and True.",
        "Keeps fp32 moments and an fp32 projection for bf16 and fp16 weights too.",
        per_group=frozenset({"lr", "weight_decay", "eps"}),
        modes=_MODES | {"fp16"},
        contrasts=_ADAFACTOR_CONTRASTS,
    ),
)
_NAMES = frozenset(spec.name for spec in SPECS)
_NOT_SHARDED = frozenset({"galore_adamw_8bit", "galore_adafactor"})


@hookimpl
def hub_register_optimizers() -> Iterable[OptimizerSpec]:
    """Offer the three GaLore optimizers."""
    return SPECS


@hookimpl
def hub_build_optimizer(
    name: str, optim_args: LowRankArguments, context: BuildContext
) -> Optimizer | None:
    """Build one of them."""
    if name not in _NAMES:
        return None
    low_rank = optim_args.model_dump(include=set(LowRankArguments.model_fields))
    arguments = optim_args.model_dump(exclude=set(low_rank))
    factory = backend.load("hub_galore.factory")
    optimizer: Optimizer = factory.build(name, context.param_groups(low_rank), arguments)
    return optimizer


@hookimpl
def hub_validate_precision(
    name: str, optim_args: LowRankArguments, context: BuildContext
) -> Iterator[Finding]:
    """Refuse what would fail in the first step."""
    if name not in _NAMES:
        return
    sharded = context.sharded()
    if sharded and name in _NOT_SHARDED:  # it mixes DTensors with plain tensors
        yield Finding.refusal(
            UnsupportedError(
                f"{name} cannot train parameters sharded by FSDP2 or tensor parallelism",
                where=sharded,
                fix="use galore_adamw, or DDP",
            )
        )
    if optim_args.proj_type == "reverse_std":
        yield from _irreversible(optim_args.rank, context)


def _irreversible(rank: int, context: BuildContext) -> Iterator[Finding]:
    """Refuse what galore_torch 1.0 projects but cannot project back.

    `GaLoreProjector.project_back` tells the side from the shape of the projected gradient, which
    for a weight with more columns than rows stops working at a rank of its number of rows.
    """
    targets = (pair for group in context.groups if group.low_rank for pair in group.parameters)
    for name, parameter in targets:
        rows, columns = parameter.shape
        if rows < columns and rank >= rows:
            yield Finding.refusal(
                OptimArgsError(
                    f"proj_type='reverse_std' cannot project a {rows}x{columns} weight at rank "
                    f"{rank}: there it needs a rank below the number of rows",
                    where=name.removesuffix(".weight"),
                    fix=f"use proj_type='std', a rank below {rows}, or leave the module out of "
                    "target_modules",
                )
            )


@hookimpl
def hub_convert_state(state: Mapping[str, Any], group: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take the projector object out of one parameter's state."""
    factory = backend.load("hub_galore.factory")
    plain: Mapping[str, Any] = factory.converted(state, group)
    return plain
