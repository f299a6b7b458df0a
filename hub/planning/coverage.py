"""Report how much of a model an optimizer with low-rank groups really trains in low rank."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from hub.errors import OptimArgsError
from hub.spec import Finding, Trait
from hub.text import shape_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic import BaseModel

    from hub.plans import PlannedGroup
    from hub.spec import OptimizerSpec


def coverage_findings(
    spec: OptimizerSpec, arguments: BaseModel, groups: Sequence[PlannedGroup]
) -> Iterator[Finding]:
    """Yield findings if less is low-rank than the optimizer's name promises.

    Args:
        spec: The optimizer.
        arguments: Its validated arguments; a rule's `rank` overrides theirs.
        groups: All groups of the plan.
    """
    if Trait.LOW_RANK in spec.traits:
        yield from _idle_rules(spec, groups)
        yield from _high_ranks(getattr(arguments, "rank", None), groups)
        yield from _stacked_weights(spec.name, groups)


def _idle_rules(spec: OptimizerSpec, groups: Sequence[PlannedGroup]) -> Iterator[Finding]:
    """Refuse rules that set a low-rank argument for parameters outside the low-rank groups."""
    used = [group.overrides.items() for group in groups if group.low_rank]
    for group in groups:
        idle = {key: value for key, value in group.overrides.items() if key in spec.low_rank}
        if idle and not any(idle.items() <= overrides for overrides in used):
            yield Finding.refuse(
                OptimArgsError(
                    f"{', '.join(idle)} cannot be set for parameters that are not projected",
                    where=f"param_rules, group '{group.name}'",
                    fix="match weights of target modules, or leave it out of the rule",
                )
            )


def _high_ranks(rank: int | None, groups: Sequence[PlannedGroup]) -> Iterator[Finding]:
    targets = [
        (parameter, group.overrides.get("rank", rank))
        for group in groups
        if group.low_rank
        for parameter in group.parameters
    ]
    high = [(p, own) for p, own in targets if isinstance(own, int) and own >= min(p.shape)]
    if high:
        parameter, own = min(high, key=lambda pair: min(pair[0].shape))
        yield Finding.note(
            f"rank={own} is not below the smaller side of {len(high)} of {len(targets)} "
            f"target weights, such as {parameter.name} ({shape_text(parameter.shape)}): their "
            "state is not low-rank, and saves no memory",
            "use a lower rank, or leave them out of target_modules",
        )


def _stacked_weights(name: str, groups: Sequence[PlannedGroup]) -> Iterator[Finding]:
    """Warn if most of the model is in weights that no linear layer owns, such as experts.

    Transformers 5 stacks the experts of a layer in one 3-D parameter (`MixtralExperts`).
    """
    sizes = {
        low_rank: sum(
            prod(p.shape)
            for group in groups
            if group.low_rank is low_rank
            for p in group.parameters
        )
        for low_rank in (True, False)
    }
    total = sum(sizes.values())
    stacked = [p for group in groups for p in group.parameters if len(p.shape) > 2]  # noqa: PLR2004
    share = sum(prod(p.shape) for p in stacked) / total if total else 0.0
    if share > 0.5:  # noqa: PLR2004
        yield Finding.warn(
            f"{sizes[True] / total:.1%} of the trainable parameters are low-rank: {share:.0%} "
            f"are in weights of more than two dimensions, such as {stacked[0].name} "
            f"({shape_text(stacked[0].shape)}), which {name} trains at full rank",
            "compare its memory with that of other optimizers, by hub.estimate",
        )
