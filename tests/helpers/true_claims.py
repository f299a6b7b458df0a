"""Check the claims of a study for their truth: with SciPy alone, from the losses."""

import math
import re
from itertools import combinations

import pytest
from scipy import stats

from hub.compare import claims
from hub.compare.claims import Claim, Lead
from hub.compare.result import Results, TaskRecord

SENTENCE = re.compile(
    r"(?P<winner>.+) is better than (?P<loser>.+): (?P<low>\S+) against (?P<high>\S+) "
    r"(?P<unit>.+), p (?P<p>[=<] \S+) \((?P<seeds>\d+) seeds\)\."
)
TIE = re.compile(r"(?P<winner>.+) and (?P<loser>.+) cannot be told apart \(p (?P<p>[=<] \S+)\)\.")


def check_claims(results: Results) -> None:
    """Check every claim and its sentence; each contender has all seeds, diverged, or failed."""
    for task in results.tasks:
        losses = {name: _losses(results, name, task) for name in results.contenders}
        whole = {name: found for name, found in losses.items() if all(map(_finite, found))}
        raw = {
            frozenset(pair): stats.ttest_rel(*(whole[name] for name in pair)).pvalue
            for pair in combinations(whole, 2)
            if len(whole[pair[0]]) > 1
        }
        ps = dict(zip(raw, holm(list(raw.values())), strict=True))
        found = claims.pairs(results, task)
        assert {frozenset((one.winner, one.loser)) for one in found} == set(ps)
        for claim in found:
            _check(claim, whole, ps, task)
        for lead in claims.claims(results, task):
            if isinstance(lead, Lead):
                _check_lead(lead, whole, ps)


def holm(ps: list[float]) -> list[float]:
    """Word for word as in Holm (1979): times how many are left, never below one before."""
    found: dict[int, float] = {}
    left = sorted(range(len(ps)), key=lambda place: ps[place])
    while left:
        place = left.pop(0)
        found[place] = max([min(1.0, (len(left) + 1) * ps[place]), *found.values()])
    return [found[place] for place in range(len(ps))]


def _losses(results: Results, name: str, task: TaskRecord) -> list[float | None]:
    return [one.loss for one in sorted(results.of(name, task.name), key=lambda one: one.run.seed)]


def _finite(loss: float | None) -> bool:
    return loss is not None and math.isfinite(loss)


def _check(claim: Claim, losses: dict, ps: dict, task: TaskRecord) -> None:
    p = ps[frozenset((claim.winner, claim.loser))]
    low, high = (sum(losses[name]) / len(losses[name]) for name in (claim.winner, claim.loser))
    assert low <= high + 1e-12
    assert (claim.winner_loss, claim.loser_loss) == pytest.approx((low, high))
    assert claim.p == pytest.approx(p, rel=1e-6, abs=1e-12)
    assert claim.told_apart == (p < 0.05)
    said = (SENTENCE if p < 0.05 else TIE).fullmatch(claim.sentence())
    assert said is not None
    assert (said["winner"], said["loser"]) == (claim.winner, claim.loser)
    _check_p(said["p"], p)
    if p < 0.05:
        assert (float(said["low"]), float(said["high"])) == pytest.approx(
            (low, high), abs=6e-4, rel=6e-3
        )
        assert (said["unit"], int(said["seeds"])) == (task.unit, len(losses[claim.winner]))


def _check_p(text: str, p: float) -> None:
    """Check that a written p is that number, or that it is below the least that is written."""
    if text == "< 0.001":
        assert p < 0.001
    else:
        assert float(text.removeprefix("= ")) == pytest.approx(p, rel=0.051)


def _check_lead(lead: Lead, losses: dict, ps: dict) -> None:
    means = {name: sum(found) / len(found) for name, found in losses.items()}
    assert means[lead.best] == pytest.approx(min(means.values()))
    others = {name: ps[frozenset((name, lead.best))] for name in means if name != lead.best}
    assert {one.loser for one in lead.better_than} == {
        name for name in others if others[name] < 0.05
    }
    assert {one.loser for one in lead.equals} == {name for name in others if others[name] >= 0.05}
    sentence = lead.sentence()
    assert sentence.startswith(f"{lead.best} has the lowest mean: ")
    assert float(sentence.split(": ")[1].split()[0]) == pytest.approx(
        means[lead.best], abs=6e-4, rel=6e-3
    )
