"""The GaLore optimizers. Imports neither torch nor galore_torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hub.backend import load_object
from hub.hookspecs import hookimpl
from hub.spec import Contrast, OptimizerSpec, Trait
from hub.updates.findings import slow_refresh
from hub_galore.arguments import (
    AdafactorArguments,
    AdamW8bitArguments,
    AdamWArguments,
    LowRankArguments,
)
from hub_galore.findings import irreversible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hub.spec import BuildContext, Finding

_MODES = frozenset({"fp32", "bf16", "bf16-mixed", "fp16-mixed"})
_NOTES = (
    (
        "Every update_proj_gap steps all projections are computed again, so that step is slow; "
        "projection='randomized' and refresh='staggered' keep it short."
    ),
    (
        "A gradient with NaN or infinity makes the SVD of such a step fail; "
        "projection='randomized' keeps the last projection."
    ),
    (
        "Steps parameters of equal shape together. On CPUs with MKL that rounds as the upstream "
        "class does; elsewhere products of small matrices may differ in the last bit."
    ),
)


def _spec(
    name: str,
    summary: str,
    factory: str,
    arguments: type[LowRankArguments],
    *notes: str,
    per_group: frozenset[str] = frozenset({"lr", "weight_decay", "betas", "eps"}),
    modes: frozenset[str] = _MODES,
    contrasts: Mapping[str, tuple[Contrast, ...]] | None = None,
) -> OptimizerSpec:
    return OptimizerSpec(
        name=name,
        summary=summary,
        factory=f"hub_galore.factory:{factory}",
        arguments=arguments,
        low_rank=frozenset(LowRankArguments.model_fields),
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
        "AdamW with low-rank state for target modules",
        "adamw",
        AdamWArguments,
    ),
    _spec(
        "galore_adamw_8bit",
        "AdamW with low-rank 8-bit state for target modules",
        "GaLoreAdamW8bit",
        AdamW8bitArguments,
        "Also trains on CPU, where the upstream class fails, and trains small and zero tensors.",
        modes=_MODES | {"fp16"},
    ),
    _spec(
        "galore_adafactor",
        "Adafactor with low-rank state for target modules",
        "adafactor",
        AdafactorArguments,
        "lr=1e-3, scale_parameter=False and relative_step=False are the defaults of Transformers' "
        "trainer for this name; the upstream class has None, True and True.",
        "Keeps fp32 moments and an fp32 projection for bf16 and fp16 weights too.",
        per_group=frozenset({"lr", "weight_decay", "eps"}),
        modes=_MODES | {"fp16"},
        contrasts=AdafactorArguments.contrasts,
    ),
)


@hookimpl
def hub_register_optimizers() -> Iterable[OptimizerSpec]:
    """Offer the three GaLore optimizers."""
    return SPECS


@hookimpl
def hub_validate_precision(
    optim_args: LowRankArguments, context: BuildContext
) -> Iterator[Finding]:
    """Note what an SVD costs, and refuse what cannot be projected back."""
    yield from slow_refresh(context)
    targets = [pair for group in context.groups if group.low_rank for pair in group.parameters]
    if optim_args.proj_type == "reverse_std":
        yield from irreversible(targets, optim_args.rank)


@hookimpl
def hub_convert_state(state: Mapping[str, Any], group: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take the projector object out of one parameter's state."""
    plain: Mapping[str, Any] = load_object("hub_galore.factory:plain_state")(state, group)
    return plain
