"""How a live parameter is sharded: over which dimension of its mesh, and on which device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hub.running.sharded.layout import Layout, SplitParameter, lay_out

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor
    from torch.distributed import ProcessGroup

    from hub.spec import Sharding


@dataclass(frozen=True)
class MeshLayout:
    """The layout of the parameters that share a mesh."""

    indices: tuple[int, ...]
    """Where they are among the parameters that `mesh_layouts` got."""
    layout: Layout


def mesh_layouts(
    sharding: Sharding, arguments: Mapping[str, Any], parameters: Sequence[tuple[Tensor, bool]]
) -> list[MeshLayout]:
    """Return one layout for each mesh over which parameters are split by rows.

    Args:
        sharding: What the optimizer's spec declares.
        arguments: The optimizer's arguments.
        parameters: All parameters of the optimizer, group by group, each with whether its gradient
            is projected. Those that are not split by rows are in no layout.
    """
    by_mesh: dict[Any, list[int]] = {}
    for index, (parameter, _) in enumerate(parameters):
        if is_sharded(parameter) and split_dimension(parameter) is not None:
            key = parameter.device_mesh, split_dimension(parameter)  # type: ignore[attr-defined]
            by_mesh.setdefault(key, []).append(index)
    found = []
    for indices in by_mesh.values():
        chosen = [
            SplitParameter(tuple(parameter.shape), parameter.element_size(), low_rank)
            for parameter, low_rank in (parameters[index] for index in indices)
        ]
        ranks = ranks_of(parameters[indices[0]][0])
        layout = lay_out(sharding, arguments, chosen, ranks)
        found.append(MeshLayout(tuple(indices), layout))
    return found


def is_sharded(parameter: Tensor) -> bool:
    """Whether the parameter is a DTensor, as FSDP2 and tensor parallelism make them."""
    return hasattr(parameter, "device_mesh")


def split_dimension(parameter: Any) -> int | None:
    """Return the dimension of a DTensor's mesh that its rows are split over.

    The only one, as with FSDP2, alone or with replicas (HSDP). None for other placements: of tensor
    parallelism, alone or with FSDP2, and of a `shard_placement_fn` that splits columns.
    """
    split = [i for i, place in enumerate(parameter.placements) if not place.is_replicate()]
    if len(split) != 1:
        return None
    place = parameter.placements[split[0]]
    # Rows that both FSDP2 and tensor parallelism split are a `_StridedShard`.
    plain = type(place).__name__ == "Shard" and place.dim == 0
    return split[0] if plain else None


def split_group(parameter: Any) -> ProcessGroup:
    """Return the process group of the ranks that a DTensor's rows are split over."""
    group: ProcessGroup = parameter.device_mesh.get_group(split_dimension(parameter))
    return group


def own_rank(parameter: Any) -> int:
    """Return this process's rank among those that a DTensor's rows are split over."""
    return int(parameter.device_mesh.get_local_rank(split_dimension(parameter)))


def ranks_of(parameter: Any) -> int:
    """Return over how many ranks a DTensor's rows are split."""
    return int(parameter.device_mesh.size(split_dimension(parameter)))
