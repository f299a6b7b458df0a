"""The statistics, against SciPy's own tests, against textbooks, and by their properties."""

import math
import random
import statistics as textbook
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from hub.compare import statistics

LOSS = st.integers(-1000, 1000).map(lambda thousandths: thousandths / 1000)
LOSSES = st.lists(LOSS, min_size=2, max_size=8)


def seeds(losses: list[float]) -> dict[int, float]:
    return dict(enumerate(losses))


# Student, "The probable error of a mean", 1908, section IX: hours of sleep that two drugs gave ten
# patients. He has odds of 666 to 1 that the second is better: one-sided.
DEXTRO = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
LAEVO = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_students_sleep():
    p = statistics.paired_p(seeds(DEXTRO), seeds(LAEVO))
    assert p == pytest.approx(0.002833, abs=1e-6)  # as R has it in ?sleep: t = -4.0621, df = 9
    assert 1 / (p / 2) == pytest.approx(667 + 39, abs=1)  # Student's table was coarser
    found = statistics.summarize([b - a for a, b in zip(DEXTRO, LAEVO, strict=True)])
    low, high = found.mean - found.half_width, found.mean + found.half_width
    assert (found.mean, low, high) == pytest.approx((1.58, 0.7001142, 2.4598858))


def test_the_interval_of_three_is_wide():
    """t(0.975, 2 degrees of freedom) = 4.303 in every table."""
    found = statistics.summarize([1.0, 2.0, 3.0])
    assert (found.count, found.mean, found.deviation) == (3, 2.0, 1.0)
    assert found.half_width == pytest.approx(4.303 / math.sqrt(3), abs=1e-3)


def test_one_measurement_has_no_interval():
    assert statistics.summarize([2.5]) == statistics.Summary(1, 2.5, None, None)


@settings(max_examples=50)
@given(LOSSES)
def test_intervals_are_those_of_scipy(losses):
    found = statistics.summarize(losses)
    assert found.deviation == textbook.stdev(losses)
    if found.deviation:
        error = found.deviation / math.sqrt(len(losses))
        low, high = stats.t.interval(0.95, len(losses) - 1, loc=found.mean, scale=error)
        assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx(
            (low, high), abs=1e-9
        )


@settings(max_examples=50)
@given(st.lists(st.tuples(LOSS, LOSS), min_size=2, max_size=8))
def test_p_is_that_of_scipy_and_symmetric(both):
    losses, other = zip(*both, strict=True)
    # Where the differences are all the same, SciPy warns and divides rounding errors by others.
    assume(len({round(first - second, 6) for first, second in both}) > 1)
    p = statistics.paired_p(seeds(losses), seeds(other))
    assert p == pytest.approx(stats.ttest_rel(losses, other).pvalue, abs=1e-9)
    assert p == statistics.paired_p(seeds(other), seeds(losses))
    assert 0 <= p <= 1


@given(LOSSES, st.floats(0.1, 10))
def test_a_larger_difference_has_a_smaller_p(losses, shift):
    noise = [0.01 * (-1) ** place * (place + 1) for place in range(len(losses))]
    ps = [
        statistics.paired_p(
            seeds([0.0] * len(losses)), seeds([times * shift + one for one in noise])
        )
        for times in (1, 2, 4)
    ]
    assert all(first >= second for first, second in pairwise(ps))


def test_only_common_seeds_count():
    first, second = {0: 1.0, 1: 2.0, 2: 9.0}, {1: 2.5, 2: 9.7, 3: 0.0}
    assert statistics.paired_p(first, second) == pytest.approx(
        stats.ttest_rel([2.0, 9.0], [2.5, 9.7]).pvalue
    )


@pytest.mark.parametrize("second", [{}, {0: 1.0}, {5: 1.0, 6: 2.0}])
def test_without_two_common_seeds_there_is_no_p(second):
    assert statistics.paired_p({0: 1.0, 1: 2.0}, second) is None


def test_pairing_finds_what_seeds_hide():
    """Seeds differ by 1, contenders by 0.01: the unpaired test sees nothing."""
    first = [1.0, 2.0, 3.0]
    second = [1.0101, 2.0099, 3.01]
    assert stats.ttest_ind(first, second).pvalue > 0.9
    assert statistics.paired_p(seeds(first), seeds(second)) < 0.001


def test_differences_without_chance():
    assert statistics.paired_p(seeds([1.0, 2.0]), seeds([1.0, 2.0])) == 1.0
    assert statistics.paired_p(seeds([1.0, 2.0]), seeds([1.5, 2.5])) == 0.0


# Holm (1979) is a step-down of Bonferroni; these are R's p.adjust(..., "holm").
@pytest.mark.parametrize(
    ("ps", "corrected"),
    [
        ([], []),
        ([0.04], [0.04]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.0, 0.0], [0.0, 0.0]),
    ],
)
def test_holm(ps, corrected):
    assert statistics.holm(ps) == pytest.approx(corrected)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_keeps_the_order_and_never_helps(ps):
    corrected = statistics.holm(ps)
    assert all(p <= one <= min(1, len(ps) * p) for p, one in zip(ps, corrected, strict=True))
    by_p = [one for _, one in sorted(zip(ps, corrected, strict=True))]
    assert by_p == sorted(by_p)


def test_chance_alone_tells_contenders_apart_as_often_as_the_level_says():
    chance = random.Random(0)

    def apart() -> bool:
        first, second = (
            seeds([level + chance.gauss(0, 0.1) for level in (2.0, 2.5, 3.0)]) for _ in range(2)
        )
        return statistics.paired_p(first, second) < statistics.LEVEL

    repeats = 1000
    found = sum(apart() for _ in range(repeats))
    assert stats.binomtest(found, repeats, statistics.LEVEL).pvalue > 0.001
