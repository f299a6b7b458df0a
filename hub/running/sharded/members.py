"""The sharded parameters of one optimizer: how each is stepped, and with which ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from hub.running.sharded.exchange import Exchange
from hub.running.sharded.meshes import is_sharded, mesh_layouts, ranks_of, split_group
from hub.running.sharded.owners import rows_by_rank
from hub.running.stand_ins import StandIn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from hub.spec import Kind, Sharding


@dataclass(frozen=True, eq=False)
class Member:
    """A sharded parameter: how it is stepped, and which rows of it each rank has."""

    parameter: Any
    """A DTensor."""
    kind: Kind
    owner: int | None
    """The rank in the exchange that steps it, if it is stepped whole."""
    rows: Sequence[int]
    """How many rows each rank of the exchange has."""
    exchange: Exchange
    unsplit: frozenset[str]
    """The keys of its state that are not split like its rows."""

    @property
    def is_owned(self) -> bool:
        """Whether this rank steps all of it."""
        return self.owner == self.exchange.rank

    @property
    def local(self) -> Tensor:
        """This rank's rows, which share the parameter's memory."""
        rows: Tensor = self.parameter.detach().to_local()
        return rows

    @property
    def local_gradient(self) -> Tensor | None:
        """This rank's rows of the gradient."""
        gradient = self.parameter.grad
        return None if gradient is None else gradient.to_local()

    def shape_on(self, rank: int) -> tuple[int, ...]:
        """Return the shape of a rank's rows."""
        return (self.rows[rank], *self.parameter.shape[1:])


class Members:
    """The sharded parameters of an optimizer.

    Args:
        sharding: What the optimizer's spec declares.
        arguments: The optimizer's arguments.
    """

    def __init__(self, sharding: Sharding, arguments: Mapping[str, Any]) -> None:
        self._sharding, self._arguments = sharding, arguments
        self._by_parameter: dict[Tensor, Member] = {}
        self._exchanges: dict[Any, Exchange] = {}

    def __iter__(self) -> Iterator[Member]:
        return iter(self._by_parameter.values())

    def __bool__(self) -> bool:
        return bool(self._by_parameter)

    @property
    def may_exist(self) -> bool:
        """Whether sharded parameters are stepped by their kinds, and not as DTensors."""
        return self._sharding.kind != "native"

    def get(self, parameter: Tensor) -> Member | None:
        """Return the member of a parameter that is stepped as rows or whole, if it is one."""
        return self._by_parameter.get(parameter)

    def stepped_shape(self, parameter: Tensor) -> torch.Size:
        """Return the shape in which this rank steps a parameter: its rows, or all of it."""
        member = self.get(parameter)
        if member is None or member.kind != "rows":
            return parameter.shape
        return member.local.shape

    def add_new(self, groups: Iterable[Mapping[str, Any]]) -> None:
        """Add the sharded parameters in these groups that are not members yet.

        Members keep their owners, which have their state.
        """
        new = [
            (parameter, bool(group.get("low_rank")))
            for group in groups
            for parameter in group["params"]
            if is_sharded(parameter) and parameter not in self._by_parameter
        ]
        for mesh in mesh_layouts(self._sharding, self._arguments, new):
            chosen = [new[index][0] for index in mesh.indices]
            exchange = self._exchange_of(chosen[0])
            for parameter, place in zip(chosen, mesh.layout.places, strict=True):
                rows = rows_by_rank(parameter.shape[0], ranks_of(parameter))
                if place.kind != "native":
                    self._by_parameter[parameter] = Member(
                        parameter,
                        place.kind,
                        place.owner,
                        rows,
                        exchange,
                        self._sharding.unsplit,
                    )

    def _exchange_of(self, parameter: Any) -> Exchange:
        group = split_group(parameter)
        if group not in self._exchanges:
            self._exchanges[group] = Exchange(group, parameter.device)
        return self._exchanges[group]


def own_rows(item: StandIn, member: Member) -> StandIn:
    """Return this rank's rows, as the stand-in for a parameter."""
    rows = torch.nn.Parameter(member.local, requires_grad=item.parameter.requires_grad)
    rows.grad = member.local_gradient
    before = sum(member.rows[: member.exchange.rank])
    return StandIn(item.group, item.index, item.parameter, rows, before * rows[:1].numel())
