"""How many elements are stepped at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hub.running.stand_ins import StandIn

    Bucket = list[StandIn]

ELEMENTS = 1 << 22
"""About how many elements a bucket has; a larger parameter is a bucket alone."""
CACHED = 1 << 19
"""About how many are copied at once on a CPU, so that the copies stay in its cache.

Both are multiples of any processor's vectors: torch's fused kernels (2.13) round what is left over
otherwise.
"""


def in_buckets(items: Sequence[StandIn], most: int | None = None) -> Iterator[Bucket]:
    """Yield all items in order, in buckets of about so many elements; None: `ELEMENTS`."""
    sizes = [item.tensor.numel() if steps(item) else 0 for item in items]
    for part in bucket_slices(sizes, most):
        yield [*items[part]]


def bucket_slices(sizes: Iterable[int], most: int | None = None) -> Iterator[slice]:
    """Yield which parameters of these sizes share a bucket."""
    most = ELEMENTS if most is None else most
    start = elements = 0
    index = -1
    for index, size in enumerate(sizes):
        if index > start and elements + size > most:
            yield slice(start, index)
            start, elements = index, 0
        elements += size
    yield slice(start, index + 1)


def copied_at_once(items: Sequence[StandIn]) -> int:
    """Return about how many elements of these parameters to copy at once."""
    on_cpu = all(item.tensor.device.type == "cpu" for item in items)
    return min(CACHED, ELEMENTS) if on_cpu else ELEMENTS


def steps(item: StandIn) -> bool:
    """Whether a parameter is stepped at all."""
    return item.tensor.grad is not None
