"""Which rank steps which sharded parameter, and what that moves: the same in plan and step."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from hub.plans import Place
from hub.running.sharded.kinds import kind_of
from hub.running.sharded.owners import (
    assign_owners,
    rows_by_rank,
    rows_of_rank,
    update_cost,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hub.spec import Sharding

BUCKET = 1 << 26
"""About how many bytes of weights an owner receives at once; as many of gradients come on top."""


class _HasOwner(Protocol):
    @property
    def parameter(self) -> Any: ...
    @property
    def owner(self) -> int | None: ...


Item = TypeVar("Item", bound=_HasOwner)


@dataclass(frozen=True, slots=True)
class SplitParameter:
    """A parameter whose rows are split over some ranks."""

    shape: tuple[int, ...]
    """Of the whole parameter."""
    itemsize: int
    """Bytes of one element; its gradient has the same dtype."""
    low_rank: bool = False
    """Whether its gradient is projected."""

    @property
    def nbytes(self) -> int:
        """Bytes of the whole parameter."""
        return prod(self.shape) * self.itemsize

    def rows_on(self, rank: int, ranks: int) -> tuple[int, ...]:
        """Return the shape of a rank's rows."""
        return (rows_of_rank(self.shape[0], ranks, rank), *self.shape[1:])

    def row_bytes(self, ranks: int) -> list[int]:
        """Return the bytes of the rows that each rank has."""
        row = prod(self.shape[1:]) * self.itemsize
        return [rows * row for rows in rows_by_rank(self.shape[0], ranks)]


class _Load(NamedTuple):
    """Bytes of one rank in one bucket."""

    rows: int
    owned: int
    """Of the whole parameters that it owns."""


_NONE = _Load(0, 0)


class _Owned(NamedTuple):
    parameter: SplitParameter
    owner: int


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

    def exchange_bytes(self) -> list[int]:
        """Return the bytes of each rank's buffers at the highest point of a step.

        There are then what a rank sends and receives for two buckets, what owners make of the
        first, weights and gradients, and the new rows so far: a rank keeps them until every owner
        has reported success.
        """
        buckets = [[_NONE] * self.ranks, *self._buckets(), [_NONE] * self.ranks]
        highest = [0] * self.ranks
        for rank in range(self.ranks):
            new = 0
            for before, now, after in zip(buckets, buckets[1:], buckets[2:], strict=False):
                new += now[rank].rows
                two_buckets = 2 * sum(now[rank]) + 2 * sum(after[rank])
                stand_ins = 2 * now[rank].owned
                highest[rank] = max(
                    highest[rank], new + before[rank].owned + two_buckets + stand_ins
                )
        return highest

    def _buckets(self) -> Iterator[list[_Load]]:
        """Yield what each rank has of each bucket of a step in which all have gradients."""
        owned = [
            _Owned(parameter, place.owner)
            for parameter, place in zip(self.parameters, self.places, strict=True)
            if place.owner is not None
        ]
        for bucket in in_buckets(owned, self.ranks):
            loads = [[0, 0] for _ in range(self.ranks)]
            for item in bucket:
                loads[item.owner][1] += item.parameter.nbytes
                for load, rows in zip(loads, item.parameter.row_bytes(self.ranks), strict=True):
                    load[0] += rows
            yield [_Load(*load) for load in loads]

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


def in_buckets(members: Sequence[Item], ranks: int, size: int = BUCKET) -> Iterator[list[Item]]:
    """Yield lists of parameters that give each owner about `size` bytes of weights, or one.

    Args:
        members: Each with its `parameter` and `owner`.
        ranks: How many ranks own some.
        size: Bytes.
    """
    queues = [[m for m in reversed(members) if m.owner == rank] for rank in range(ranks)]
    while any(queues):
        bucket = []
        for queue in queues:
            taken = 0
            while queue and (not taken or taken + queue[-1].parameter.nbytes <= size):
                taken += queue[-1].parameter.nbytes
                bucket.append(queue.pop())
        yield bucket


def _cost(parameter: SplitParameter) -> float:
    return update_cost(parameter.shape, low_rank=parameter.low_rank)
