"""What is told apart in real trainings, and what is not."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from hub.compare import Contender, Results, Settings, claims, run

SEEDS, REPEATS = 3, 20
TASK = "problems/logistic"
SAME = ("adamw_torch:lr=0.02", "adamw_torch:lr=0.02,label='the same again'")
SLOW = "adamw_torch:lr=0.0002"


@pytest.fixture(scope="module")
def results() -> Results:
    settings = Settings(
        contenders=tuple(Contender.parse(text) for text in (*SAME, SLOW)),
        tasks=(TASK,),
        steps=40,
        seeds=2 * SEEDS * REPEATS,
        jobs=2,
    )
    return run(settings, Console(file=io.StringIO()))


def part(results: Results, shown: dict[str, range]) -> Results:
    """Return the trainings of some seeds of each contender, numbered anew."""
    outcomes = [
        replace(one, run=replace(one.run, seed=shown[one.run.contender].index(one.run.seed)))
        for one in results.outcomes
        if one.run.seed in shown.get(one.run.contender, ())
    ]
    return replace(results, outcomes=tuple(outcomes))


def told_apart(results: Results, first: str, second: str, shift: int = 0) -> int:
    """Count the repeats, each with seeds of its own, in which one is called better."""
    found = 0
    for repeat in range(REPEATS):
        seeds = range(repeat * SEEDS, (repeat + 1) * SEEDS)
        others = range(seeds.start + shift, seeds.stop + shift)
        shown = part(results, {first: seeds, second: others})
        (claim,) = claims.pairs(shown, results.tasks[0])
        found += claim.told_apart
    return found


def test_a_contender_and_itself_are_never_told_apart(results):
    first, second, _ = results.contenders
    assert told_apart(results, first, second) == 0


def test_with_other_seeds_it_is_told_apart_in_one_of_twenty_repeats_at_most(results):
    first, second, _ = results.contenders
    assert told_apart(results, first, second, shift=SEEDS * REPEATS) <= 1


def test_a_learning_rate_a_hundred_times_too_small_is_always_told_apart(results):
    first, _, slow = results.contenders
    assert told_apart(results, first, slow) == REPEATS
