"""What `offload` does to a build: findings, and which state is on the device."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from hub.errors import UnsupportedError
from hub.running.buckets.sizes import ELEMENTS, bucket_slices
from hub.spec import Finding, Trait

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hub.groups.split import Named
    from hub.spec import OptimizerSpec

_CONSECUTIVE = 3
"""How many buckets are on the device at once: one comes, one is stepped, and one leaves."""


class StateBytes(NamedTuple):
    """Where the state of one optimizer is."""

    staying: int
    """Bytes that are always on the device."""
    passing: int
    """Bytes that are there at most for a while."""
    host: int


def offload_findings(
    spec: OptimizerSpec, offload: str | None, trainable: Named
) -> Iterator[Finding]:
    """Yield what speaks against `offload`, or else what it costs.

    Args:
        spec: The optimizer.
        offload: As in `hub.arguments.LowMemory`.
        trainable: The parameters, by name.
    """
    if offload is None:
        return
    if spec.why_not_offloaded:
        yield Finding.refuse(
            UnsupportedError(
                f"the state of {spec.name} cannot be in the host's memory between steps: "
                f"{spec.why_not_offloaded}",
                where="offload",
                fix="leave offload out, or use another optimizer",
            )
        )
    elif all(parameter.device.type == "cpu" for _, parameter in trainable):
        yield Finding.note(
            f"offload='{offload}' saves nothing here: the model is on the CPU, and so is its state"
        )
    else:
        yield Finding.note(
            f"offload='{offload}' keeps the state in the host's memory, and each step moves it to "
            f"the device and back: {_at_once(spec)}"
        )


def _at_once(spec: OptimizerSpec) -> str:
    if Trait.PER_PARAMETER not in spec.traits:
        return f"all of it at once, because {spec.name} updates all parameters together"
    if Trait.STEPS_IN_BACKWARD in spec.traits:
        return (
            "that of one parameter after another, inside the backward pass, and about "
            f"{ELEMENTS:,} elements of the next ones on their way"
        )
    return f"that of about {ELEMENTS:,} elements after another, and the next while one is stepped"


def offloaded(
    spec: OptimizerSpec, own: Mapping[str, int], shared: int, elements: Sequence[int]
) -> StateBytes:
    """Return where state is with `offload`.

    Args:
        spec: The optimizer.
        own: The bytes of each parameter's state, by name, in order.
        shared: The bytes that all parameters share.
        elements: How many elements of each parameter are stepped.
    """
    sizes = list(own.values())
    if Trait.PER_PARAMETER not in spec.traits:
        passing = sum(sizes)
    elif Trait.STEPS_IN_BACKWARD in spec.traits:
        passing = _in_backward(sizes, elements)
    else:
        buckets = [sum(sizes[part]) for part in bucket_slices(elements)]
        following = (buckets[i : i + _CONSECUTIVE] for i in range(len(buckets)))
        passing = max(map(sum, following))
    return StateBytes(shared, passing, sum(sizes))


def _in_backward(sizes: Sequence[int], elements: Sequence[int]) -> int:
    """Return the most bytes that are on the device at once, in whichever order parameters come.

    One is stepped, and on each side of it there is about a bucket, or one parameter.
    """
    stepped, *others = sorted(sizes, reverse=True)
    bucket = _densest(sizes, elements)
    sides = sum(max(bucket, size) for size in others[: _CONSECUTIVE - 1])
    return min(sum(sizes), stepped + sides)


def _densest(sizes: Sequence[int], elements: Sequence[int]) -> int:
    """Return the bytes of a bucket's elements, of the parameters with the most bytes for each."""
    left, found = ELEMENTS, 0.0
    dense = sorted(zip(sizes, elements, strict=True), key=lambda pair: -pair[0] / max(pair[1], 1))
    for size, count in dense:
        if count > left:
            return ceil(found + size * left / count)
        left, found = left - count, found + size
    return ceil(found)
