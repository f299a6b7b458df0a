"""Which rank steps which sharded parameter, and what that moves: the same in plan and step."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from hub.plans import Place
from hub.running.sharded.kinds import kind_of
from hub.running.sharded.owners import assign_owners, rows_by_rank, update_cost

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hub.spec import Sharding


@dataclass(frozen=True, slots=True)
class SplitParameter:
    """A parameter whose rows are split over some ranks."""

    shape: tuple[int, ...]
    """Of the whole parameter."""
    itemsize: int
    """Bytes of one element; its gradient has the same dtype."""
    low_rank: bool = False
    """Whether its gradient is projected."""

    def row_bytes(self, ranks: int) -> list[int]:
        """Return the bytes of the rows that each rank has."""
        row = prod(self.shape[1:]) * self.itemsize
        return [rows * row for rows in rows_by_rank(self.shape[0], ranks)]


@dataclass(frozen=True)
class Layout:
    """The places of all parameters that are split over the same ranks."""

    parameters: tuple[SplitParameter, ...]
    places: tuple[Place, ...]
    """In the order of the parameters."""
    ranks: int

    def received(self) -> list[int]:
        """Return the bytes that each rank receives in a step.

        An owner receives the other ranks' rows of weight and gradient; each of them receives its
        rows of the new weight.
        """
        total = [0] * self.ranks
        for parameter, place in zip(self.parameters, self.places, strict=True):
            if place.owner is None:
                continue
            size = parameter.row_bytes(self.ranks)
            for rank, own in enumerate(size):
                total[rank] += 2 * (sum(size) - own) if rank == place.owner else own
        return total

    def work(self) -> list[float]:
        """Return what the updates of the whole parameters of each rank cost."""
        total = [0.0] * self.ranks
        for parameter, place in zip(self.parameters, self.places, strict=True):
            if place.owner is not None:
                total[place.owner] += _cost(parameter)
        return total

    def imbalance(self) -> float:
        """Return the work of the busiest rank divided by the mean; 1.0 is even."""
        work = self.work()
        return max(work) * self.ranks / sum(work) if any(work) else 1.0


def lay_out(
    sharding: Sharding,
    arguments: Mapping[str, Any],
    parameters: Sequence[SplitParameter],
    ranks: int,
) -> Layout:
    """Decide how each parameter is stepped, from nothing but shapes: the same on every rank.

    Args:
        sharding: What the optimizer's spec declares.
        arguments: The optimizer's arguments.
        parameters: Those that are split over the same ranks, in the order of the groups.
        ranks: How many ranks their rows are split over; replicas of the model do not count.
    """
    kinds = [
        kind_of(sharding, arguments, parameter.shape, rows_by_rank(parameter.shape[0], ranks))
        for parameter in parameters
    ]
    whole = [index for index, kind in enumerate(kinds) if kind == "whole"]
    owners = assign_owners([_cost(parameters[index]) for index in whole], ranks)
    owner_of = dict(zip(whole, owners, strict=True))
    places = tuple(Place(kind, owner_of.get(index)) for index, kind in enumerate(kinds))
    return Layout(tuple(parameters), places, ranks)


def _cost(parameter: SplitParameter) -> float:
    return update_cost(parameter.shape, low_rank=parameter.low_rank)
