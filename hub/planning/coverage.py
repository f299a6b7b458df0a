"""How much of a model an optimizer with low-rank groups really trains in low rank."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from hub.spec import Finding, Level, Trait

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic import BaseModel

    from hub.plans import PlannedGroup, PlannedParameter
    from hub.spec import OptimizerSpec


def coverage_findings(
    spec: OptimizerSpec, arguments: BaseModel, groups: Sequence[PlannedGroup]
) -> Iterator[Finding]:
    """Yield where less is low-rank than the name of the optimizer promises.

    Args:
        spec: The optimizer.
        arguments: Its validated arguments; a `rank` among them counts, and that of a rule first.
        groups: All groups of the plan.
    """
    if Trait.LOW_RANK in spec.traits:
        yield from _high_ranks(getattr(arguments, "rank", None), groups)
        yield from _stacked_weights(spec.name, groups)


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
        yield Finding(
            level=Level.NOTE,
            what=f"rank={own} is not below the smaller side of {len(high)} of {len(targets)} "
            f"target weights, such as {parameter.name} ({_shape(parameter)}): their state is not "
            "low-rank, and saves no memory",
            fix="use a lower rank, or leave them out of target_modules",
        )


def _stacked_weights(name: str, groups: Sequence[PlannedGroup]) -> Iterator[Finding]:
    """Warn where most of the model is in weights that no linear layer owns, as experts may be.

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
        yield Finding(
            level=Level.WARN,
            what=f"{sizes[True] / total:.1%} of the trainable parameters are low-rank: {share:.0%} "
            f"are in weights of more than two dimensions, such as {stacked[0].name} "
            f"({_shape(stacked[0])}), which {name} trains at full rank",
            fix="compare with other optimizers by hub.estimate",
        )


def _shape(parameter: PlannedParameter) -> str:
    return "x".join(map(str, parameter.shape))
