"""What each rank keeps of a model's parameters, and moves in a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hub.errors import OptimArgsError, UnsupportedError
from hub.groups.flat import is_flattened
from hub.measuring import local_part, tensor_bytes
from hub.running.sharded.layout import SplitParameter, lay_out
from hub.running.sharded.meshes import is_sharded, own_rank
from hub.running.sharded.refusals import checked_sharding
from hub.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch.nn import Module

    from hub.planning.single import Prepared

    Shape = tuple[int, ...]


@dataclass(frozen=True)
class Share:
    """What one rank keeps and steps."""

    parameters: int
    """Bytes of all parameters."""
    trained: tuple[int, ...]
    """Bytes of each trainable parameter."""
    stepped: Mapping[str, Shape]
    """The shapes that it steps, by name: its rows of a parameter, or all, if it is the owner."""
    exchange: int = 0
    """Bytes in buffers while whole parameters are at their owners."""


def share_here(prepared: Prepared, model: Module) -> Share:
    """Return what this process keeps of a model as it is now, sharded or not."""
    named = list(prepared.context.named_parameters())
    stepped = {name: tuple(local_part(p).shape) for name, p in named}
    exchange = 0
    for mesh in prepared.layouts:
        rank = own_rank(named[mesh.indices[0]][1])
        exchange += mesh.layout.exchange_bytes()[rank]
        for index, place in zip(mesh.indices, mesh.layout.places, strict=True):
            name, parameter = named[index]
            if place.kind == "whole":
                del stepped[name]
            if place.owner == rank:
                stepped[name] = tuple(parameter.shape)
    return Share(
        parameters=sum(tensor_bytes(p) for p in model.parameters()),
        trained=tuple(tensor_bytes(p) for _, p in named),
        stepped=stepped,
        exchange=exchange,
    )


def shares_on_mesh(prepared: Prepared, model: Module, mesh: Sequence[int]) -> Iterator[Share]:
    """Yield what each rank would keep if FSDP2 sharded all of a model over a mesh.

    Args:
        prepared: The plan and its model.
        model: The model, not sharded yet.
        mesh: The number of ranks; for HSDP the number of replicas, and that of ranks in each.

    Raises:
        OptimArgsError: `mesh` is something else.
        UnsupportedError: The optimizer trains no sharded parameters, or the model is sharded.
    """
    ranks = _ranks(mesh)
    _check_shardable(model)
    sharding = checked_sharding(prepared.spec, where="mesh")
    named = {
        name: SplitParameter(tuple(p.shape), p.element_size(), group.low_rank)
        for group in prepared.context.groups
        for name, p in group.parameters
    }
    layout = lay_out(sharding, dict(prepared.optim_args), list(named.values()), ranks)
    every = [SplitParameter(tuple(p.shape), p.element_size()) for p in model.parameters()]
    kept = [parameter.row_bytes(ranks) for parameter in every]
    trained = [parameter.row_bytes(ranks) for parameter in named.values()]
    exchange = layout.exchange_bytes()
    for rank in range(ranks):
        yield Share(
            parameters=sum(sizes[rank] for sizes in kept),
            trained=tuple(sizes[rank] for sizes in trained),
            stepped={
                name: parameter.rows_on(rank, ranks) if place.owner is None else parameter.shape
                for (name, parameter), place in zip(named.items(), layout.places, strict=True)
                if place.owner in (None, rank)
            },
            exchange=exchange[rank],
        )


def _ranks(mesh: Sequence[int]) -> int:
    """Return over how many ranks a mesh splits the rows of parameters."""
    sizes: tuple[int, ...] = tuple(mesh) if isinstance(mesh, tuple | list) else ()
    if len(sizes) not in (1, 2) or not all(type(size) is int and size > 0 for size in sizes):
        raise OptimArgsError(
            f"mesh={shown(mesh)} is not a shape",
            where="mesh",
            fix="pass (8,) for FSDP2 on 8 ranks, and (2, 4) for 2 replicas on 4 ranks each (HSDP)",
        )
    return sizes[-1]


def _check_shardable(model: Module) -> None:
    if is_flattened(model) or any(is_sharded(parameter) for parameter in model.parameters()):
        raise UnsupportedError(
            "the model is sharded already",
            where="mesh",
            fix="leave mesh out for what this rank keeps, or pass the model before sharding",
        )
    for name, parameter in model.named_parameters():
        if not parameter.ndim:
            raise UnsupportedError(
                "FSDP2 does not shard parameters without dimensions",
                where=name,
                fix="give it the shape (1,)",
            )
