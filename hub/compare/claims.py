"""Sentences that follow from the numbers of a study, and from nothing else."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING

from hub.compare import statistics
from hub.compare.result import Purpose, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hub.compare.result import Outcome, Results, TaskRecord

EACH = 3
"""Up to so many pairs, there is a sentence for each."""
NAMED = 6
"""Up to so many contenders are named in a list."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What the seeds that two contenders share say of them."""

    winner: str
    """The one with the lower mean, by however little."""
    loser: str
    winner_loss: float
    """Its mean over these seeds."""
    loser_loss: float
    seeds: int
    p: float
    """Corrected for all pairs of the task, see `statistics.holm`."""
    unit: str

    @property
    def told_apart(self) -> bool:
        """Whether the winner is better, and not only luckier."""
        return self.p < statistics.LEVEL

    def __str__(self) -> str:
        if not self.told_apart:
            return f"{self.winner} and {self.loser} cannot be told apart ({p_text(self.p)})."
        return (
            f"{self.winner} is better than {self.loser}: {loss_text(self.winner_loss)} against "
            f"{loss_text(self.loser_loss)} {self.unit}, {p_text(self.p)} ({self.seeds} seeds)."
        )


@dataclass(frozen=True, kw_only=True)
class Lead:
    """The contender with the lowest mean, and what it says of each other one."""

    best: str
    loss: float
    seeds: int
    unit: str
    better_than: tuple[Claim, ...]
    equals: tuple[Claim, ...]
    """With those that it cannot be told from, here called its equals."""

    def __str__(self) -> str:
        lowest = (
            f"{self.best} has the lowest mean: {loss_text(self.loss)} {self.unit} "
            f"({self.seeds} seeds)."
        )
        if not self.better_than:
            least = min(claim.p for claim in self.equals)
            every = p_text(least, "≥" if least < 1 else "=")
            return f"{lowest} It cannot be told from any other contender (every {every})."
        worst = p_text(
            max(claim.p for claim in self.better_than), "≤" if self.better_than[1:] else "="
        )
        better = f"It is better than {_listed([one.loser for one in self.better_than])} ({worst})."
        if not self.equals:
            return f"{lowest} {better}"
        pairs = [f"{claim.loser} ({p_text(claim.p)})" for claim in self.equals]
        return f"{lowest} It cannot be told from {_listed(pairs)}. {better}"


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """That trainings of a contender ended without a loss to compare."""

    contender: str
    status: Status
    count: int
    seeds: int

    def __str__(self) -> str:
        verb = {
            Status.DIVERGED: "diverged",
            Status.FAILED: "failed",
            Status.INTERRUPTED: "was interrupted",
            Status.NOT_STARTED: "was not started",
        }[self.status]
        where = f" in {self.count} of {self.seeds} seeds" if self.seeds > 1 else ""
        return f"{self.contender} {verb}{where}."


@dataclass(frozen=True)
class Silence:
    """Why nothing can be said of who is better."""

    why: str

    def __str__(self) -> str:
        return self.why


def losses(results: Results, contender: str, task: str) -> dict[int, float]:
    """Return the held-out loss by seed, of the trainings that are done."""
    return {
        outcome.run.seed: outcome.loss
        for outcome in results.of(contender, task)
        if outcome.loss is not None and math.isfinite(outcome.loss)
    }


def ranked(results: Results, task: str) -> dict[str, dict[int, float]]:
    """Return the losses of the contenders whose means say something, in the study's order.

    One that diverged or failed with a seed is not among them: the mean of the seeds that went well
    would flatter it.
    """
    return {
        contender: found
        for contender in results.contenders
        if (found := losses(results, contender, task))
        and not any(
            outcome.status in (Status.DIVERGED, Status.FAILED)
            for outcome in results.of(contender, task)
        )
    }


def shared(results: Results, task: str) -> dict[str, dict[int, float]]:
    """Return the losses that can be compared: of the seeds that all have who have two or more."""
    several = {name: found for name, found in ranked(results, task).items() if len(found) > 1}
    common = set.intersection(*map(set, several.values())) if several else set()
    return {name: {seed: found[seed] for seed in sorted(common)} for name, found in several.items()}


def pairs(results: Results, task: TaskRecord) -> tuple[Claim, ...]:
    """Compare every two contenders, if there are seeds to do it with.

    Raises:
        HubError: SciPy is missing.
    """
    able = shared(results, task.name)
    found = [
        (pair, statistics.paired_p(able[pair[0]], able[pair[1]])) for pair in combinations(able, 2)
    ]
    known = [(pair, p) for pair, p in found if p is not None]
    corrected = statistics.holm([p for _, p in known])
    return tuple(
        _claim({name: able[name] for name in pair}, p, task.unit)
        for (pair, _), p in zip(known, corrected, strict=True)
    )


def claims(results: Results, task: TaskRecord) -> tuple[Claim | Lead | Trouble | Silence, ...]:
    """Return all that can be said of one task: who is better, and who is out.

    Raises:
        HubError: SciPy is missing.
    """
    compared = pairs(results, task)
    said: tuple[Claim | Lead | Silence, ...] = compared
    if not compared:
        said = (_silence(ranked(results, task.name)),)
    elif len(compared) > EACH:
        said = (_lead(compared),)
    return (*said, *_troubles(results, task.name))


def p_text(p: float, sign: str = "=") -> str:
    """Write a p value, on its side of the level however it is rounded."""
    if p < 0.001:  # noqa: PLR2004 - the usual end of what is written out
        return "p < 0.001"
    rounded = (f"{p:.{digits}g}" for digits in range(2, 17))
    side = p < statistics.LEVEL
    text = next((one for one in rounded if (float(one) < statistics.LEVEL) is side), repr(p))
    return f"p {sign} {text}"


def loss_text(loss: float) -> str:
    """Write a loss with the digits that people compare."""
    return f"{loss:.3f}" if 0.1 <= abs(loss) < 1000 or loss == 0 else f"{loss:.3g}"  # noqa: PLR2004


def _claim(able: dict[str, dict[int, float]], p: float, unit: str) -> Claim:
    means = {name: fmean(found.values()) for name, found in able.items()}
    winner, loser = sorted(means, key=means.__getitem__)
    return Claim(
        winner=winner,
        loser=loser,
        winner_loss=means[winner],
        loser_loss=means[loser],
        seeds=len(able[winner]),
        p=p,
        unit=unit,
    )


def _lead(compared: Sequence[Claim]) -> Lead:
    first = min(compared, key=lambda claim: claim.winner_loss)
    mine = [claim for claim in compared if first.winner in (claim.winner, claim.loser)]
    return Lead(
        best=first.winner,
        loss=first.winner_loss,
        seeds=first.seeds,
        unit=first.unit,
        better_than=tuple(claim for claim in mine if claim.told_apart),
        equals=tuple(claim for claim in mine if not claim.told_apart),
    )


def _silence(able: dict[str, dict[int, float]]) -> Silence:
    if not able:
        return Silence("No contender was trained to the end with every seed.")
    if len(able) == 1:
        return Silence(f"Only {next(iter(able))} was trained to the end: nothing compares with it.")
    if max(map(len, able.values())) == 1:
        return Silence("One seed: no contender can be called better.")
    return Silence("No two seeds are done by two contenders: none can be called better.")


def _troubles(results: Results, task: str) -> tuple[Trouble, ...]:
    found = []
    for contender in results.contenders:
        outcomes: tuple[Outcome, ...] = results.of(contender, task, Purpose.FINAL)
        counts = Counter(outcome.status for outcome in outcomes)
        found += [
            Trouble(contender=contender, status=status, count=counts[status], seeds=len(outcomes))
            for status in Status
            if status is not Status.DONE and counts[status]
        ]
    return tuple(found)


def _listed(texts: Sequence[str]) -> str:
    if len(texts) > NAMED:
        return f"{len(texts)} others"
    return " and ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))
