"""Which rank steps which whole parameter: pure arithmetic, the same on every rank."""

from __future__ import annotations

import heapq
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def assign_owners(costs: Sequence[float], ranks: int) -> list[int]:
    """Return the owner of each parameter, so that no rank has much more to do than another.

    The most expensive come first, each to the rank with the least to do (Graham's rule, "Bounds on
    multiprocessing timing anomalies", 1969): the busiest has at most 4/3 of the optimum.

    Args:
        costs: What the update of each parameter costs, in any unit.
        ranks: How many ranks share the work.
    """
    loads = [(0.0, rank) for rank in range(ranks)]
    owners = [0] * len(costs)
    for index in sorted(range(len(costs)), key=lambda index: (-costs[index], index)):
        load, rank = heapq.heappop(loads)
        owners[index] = rank
        heapq.heappush(loads, (load + costs[index], rank))
    return owners


def update_cost(shape: Sequence[int], *, low_rank: bool) -> float:
    """Return what an update costs: a matrix's decomposition, or else one pass over the elements.

    A singular value decomposition of m×n, m ≥ n, is of the order of m·n².
    """
    return float(max(shape) * min(shape) ** 2 if low_rank else prod(shape))


def rows_by_rank(rows: int, ranks: int) -> list[int]:
    """Return how many of a tensor's rows each rank has, as `torch.chunk` splits them."""
    return [rows_of_rank(rows, ranks, rank) for rank in range(ranks)]


def rows_of_rank(rows: int, ranks: int, rank: int) -> int:
    """Return how many of a tensor's rows one of the ranks has."""
    size = -(-rows // ranks)
    return max(0, min(size, rows - rank * size))
