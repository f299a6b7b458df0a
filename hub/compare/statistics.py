"""What a few seeds can tell: means with intervals, and p values of paired differences."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hub.experiments import extra

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LEVEL = 0.05
"""A p value below it tells two contenders apart."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """Several measurements of the same thing."""

    count: int
    mean: float
    deviation: float | None
    """Of the sample, with n - 1; None for one measurement, as the next."""
    half_width: float | None
    """The interval is the mean plus and minus this."""


def summarize(values: Sequence[float]) -> Summary:
    """Return the mean and its 95 % interval by Student's t distribution.

    Args:
        values: Finite numbers, at least one.

    Raises:
        HubError: SciPy is missing.
    """
    count, mean = len(values), statistics.fmean(values)
    if count == 1:
        return Summary(1, mean, None, None)
    deviation = statistics.stdev(values)
    quantile = extra.load("scipy.special").stdtrit(count - 1, (1 + CONFIDENCE) / 2)
    return Summary(count, mean, deviation, float(quantile) * deviation / math.sqrt(count))


def paired_p(first: Mapping[int, float], second: Mapping[int, float]) -> float | None:
    """Return the p value of a two-sided paired t-test over the seeds that both have.

    Contenders share the weights and the order of the data of a seed, so their difference varies
    less than their losses do. Differences that are all the same leave nothing to chance: p is 1
    where they are zero, else 0.

    Args:
        first: Finite losses by seed.
        second: The other contender's.

    Returns:
        None with fewer than two seeds in common.

    Raises:
        HubError: SciPy is missing.
    """
    differences = [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]
    if len(differences) < 2:  # noqa: PLR2004 - one difference has no deviation
        return None
    if not any(differences):
        return 1.0
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    if error == 0:
        return 0.0
    t = statistics.fmean(differences) / error
    return 2 * float(extra.load("scipy.special").stdtr(len(differences) - 1, -abs(t)))


def holm(ps: Sequence[float]) -> list[float]:
    """Correct p values for how many there are, in their order.

    The chance of one false finding or more among all stays below the level. Source: S. Holm,
    "A simple sequentially rejective multiple test procedure", 1979.
    """
    corrected = [0.0] * len(ps)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[index]))
        corrected[index] = highest
    return corrected
