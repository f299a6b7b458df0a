"""Where each sharded parameter is stepped, in the plan: the layouts that the step will use."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from hub.running.sharded.kinds import sharding_of
from hub.running.sharded.meshes import mesh_layouts
from hub.spec import Finding
from hub.text import size_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from hub.plans import PlannedGroup
    from hub.running.sharded.layout import Layout
    from hub.running.sharded.meshes import MeshLayout
    from hub.spec import Kind, OptimizerSpec

_STEPPED: dict[Kind, str] = {
    "native": "as the DTensors they are",
    "rows": "by each rank in its own rows",
    "whole": "as a whole by one rank each",
}


def planned_layouts(
    spec: OptimizerSpec,
    arguments: Mapping[str, object],
    groups: Sequence[PlannedGroup],
    parameters: Mapping[str, Tensor],
) -> list[MeshLayout]:
    """Return the layouts of the parameters that FSDP2 shards, one for each mesh.

    Args:
        spec: The optimizer.
        arguments: Its arguments.
        groups: The groups of the plan.
        parameters: Their parameters, by name.
    """
    sharding = sharding_of(spec)
    if sharding is None:
        return []
    ordered = [(parameters[p.name], group.low_rank) for group in groups for p in group.parameters]
    return mesh_layouts(sharding, arguments, ordered)


def with_places(
    groups: Sequence[PlannedGroup], layouts: Sequence[MeshLayout]
) -> tuple[PlannedGroup, ...]:
    """Return the groups with the place of each parameter that has one."""
    places = {
        index: place
        for mesh in layouts
        for index, place in zip(mesh.indices, mesh.layout.places, strict=True)
    }
    if not places:
        return tuple(groups)
    numbers = iter(range(sum(len(group.parameters) for group in groups)))
    return tuple(
        replace(
            group,
            parameters=tuple(
                replace(parameter, place=places.get(number))
                for parameter, number in zip(group.parameters, numbers, strict=False)
            ),
        )
        for group in groups
    )


def layout_notes(layouts: Sequence[MeshLayout]) -> Iterator[Finding]:
    """Yield a note for each mesh: how its parameters are stepped, and what that moves."""
    for mesh in layouts:
        yield Finding.note(_described(mesh.layout))


def _described(layout: Layout) -> str:
    counts = Counter(place.kind for place in layout.places)
    how = ", ".join(f"{counts[kind]} {words}" for kind, words in _STEPPED.items() if counts[kind])
    text = (
        f"of {len(layout.places)} parameters sharded over {layout.ranks} ranks, a step updates "
        f"{how}"
    )
    if not counts["whole"]:
        return f"{text}; nothing is moved"
    received = layout.received()
    return (
        f"{text}; for these, a rank receives {size_text(sum(received) / len(received))} on average "
        f"and {size_text(max(received))} at most, and the busiest has {layout.imbalance():.2f} "
        "times the mean work"
    )
