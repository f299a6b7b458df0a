"""Refuse sharded parameters that an optimizer cannot step like whole ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hub.errors import UnsupportedError
from hub.running.sharded.kinds import sharding_of
from hub.running.sharded.meshes import is_sharded, mesh_layouts, split_dimension, split_group

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from hub.spec import OptimizerSpec, Sharding

    Named = Sequence[tuple[str, Tensor]]


def check_sharded(spec: OptimizerSpec, arguments: Mapping[str, Any], named: Named) -> None:
    """Check that an optimizer can step all parameters that are DTensors.

    Args:
        spec: The optimizer.
        arguments: Its arguments.
        named: Names and parameters.

    Raises:
        UnsupportedError: It cannot step DTensors; or they are split in another way than by rows
            over one dimension of the mesh; or they are offloaded to the CPU, and no process group
            moves them there. The error names the parameter.
    """
    sharded = [(name, parameter) for name, parameter in named if is_sharded(parameter)]
    if not sharded:
        return
    sharding = checked_sharding(spec, where=sharded[0][0])
    _check_placements(spec, sharding, sharded)
    _check_offload(spec, sharding, arguments, sharded)


def checked_sharding(spec: OptimizerSpec, where: str) -> Sharding:
    """Return how an optimizer steps sharded parameters.

    Raises:
        UnsupportedError: It cannot; the error says why.
    """
    sharding = sharding_of(spec)
    if sharding is None:
        raise UnsupportedError(
            f"{spec.name} cannot train parameters sharded by FSDP2 or tensor parallelism: "
            + (spec.why_not_sharded or "its plugin does not say how (OptimizerSpec.sharding)"),
            where=where,
            fix="use DDP, or another optimizer, such as adamw_torch",
        )
    return sharding


def _check_placements(spec: OptimizerSpec, sharding: Sharding, sharded: Named) -> None:
    if sharding.kind == "native":
        return
    for name, parameter in sharded:
        if split_dimension(parameter) is None:
            placements: Any = parameter.placements  # type: ignore[attr-defined]
            where = ", ".join(map(str, placements))
            raise UnsupportedError(
                f"{spec.name} steps plain tensors: rows, or whole parameters that hub gathers, and "
                "both need one dimension of the mesh that splits rows (FSDP2, HSDP); here the "
                f"placements are {where}",
                where=name,
                fix="shard with fully_shard over one dimension, without tensor parallelism or a "
                "shard_placement_fn; or use another optimizer, such as adamw_torch",
            )


def _check_offload(
    spec: OptimizerSpec, sharding: Sharding, arguments: Mapping[str, Any], sharded: Named
) -> None:
    for mesh in mesh_layouts(sharding, arguments, [(parameter, False) for _, parameter in sharded]):
        whole = (
            i for i, p in zip(mesh.indices, mesh.layout.places, strict=True) if p.owner is not None
        )
        name, parameter = next((sharded[index] for index in whole), ("", None))
        if parameter is not None and not _group_moves(parameter):
            raise UnsupportedError(
                f"{spec.name} steps whole parameters, whose rows are on the CPU (CPU offload), and "
                "the process group moves no CPU tensors",
                where=name,
                fix='call torch.distributed.init_process_group("cpu:gloo,cuda:nccl")',
            )


def _group_moves(parameter: Any) -> bool:
    """Whether the ranks can exchange tensors on a parameter's device (torch 2.13)."""
    device = parameter.device.type
    if device == parameter.device_mesh.device_type:
        return True
    return device in {other.type for other in split_group(parameter)._device_types}  # noqa: SLF001
