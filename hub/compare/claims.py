"""Sentences that follow from the numbers of a study, and from nothing else."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING

from hub.compare import formatting, statistics
from hub.compare.result import Purpose, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hub.compare.result import Results, TaskRecord

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

    def sentence(self, name: Callable[[str], str] = str) -> str:
        """Say it, with contenders as `name` writes them."""
        winner, loser = name(self.winner), name(self.loser)
        if not self.told_apart:
            return f"{winner} and {loser} cannot be told apart ({_p(self.p)})."
        losses = f"{formatting.loss(self.winner_loss)} against {formatting.loss(self.loser_loss)}"
        return (
            f"{winner} is better than {loser}: {losses} {self.unit}, {_p(self.p)} "
            f"({self.seeds} seeds)."
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

    def sentence(self, name: Callable[[str], str] = str) -> str:
        """Say it, with contenders as `name` writes them."""
        best, loss = name(self.best), formatting.loss(self.loss)
        lowest = f"{best} has the lowest mean: {loss} {self.unit} ({self.seeds} seeds)."
        if not self.better_than:
            least = min(claim.p for claim in self.equals)
            every = _p(least, "≥" if least < 1 else "=")
            return f"{lowest} It cannot be told from any other contender (every {every})."
        worst = _p(max(claim.p for claim in self.better_than), "≤" if self.better_than[1:] else "=")
        better = f"better than {_listed([name(one.loser) for one in self.better_than])} ({worst})."
        if not self.equals:
            return f"{lowest} It is {better}"
        pairs = [f"{name(claim.loser)} ({_p(claim.p)})" for claim in self.equals]
        return f"{lowest} It cannot be told from {_listed(pairs)}. It is {better}"


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """That trainings of a contender ended without a loss to compare."""

    contender: str
    status: Status
    count: int
    total: int
    trials: bool = False
    """Whether they are trials of tuning: without a good one, there are no others."""

    def sentence(self, name: Callable[[str], str] = str) -> str:
        """Say it, with the contender as `name` writes it."""
        verb = {
            Status.DIVERGED: "diverged",
            Status.FAILED: "failed",
            Status.INTERRUPTED: "was interrupted",
            Status.NOT_STARTED: "was not started",
        }[self.status]
        what = "trials" if self.trials else "seeds"
        where = f" in {self.count} of {self.total} {what}" if self.total > 1 else ""
        return f"{name(self.contender)} {verb}{where}."


@dataclass(frozen=True)
class Silence:
    """Why nothing can be said of who is better."""

    why: str
    contender: str = ""
    """Whom it is about, if one: its name goes where `why` has braces."""

    def sentence(self, name: Callable[[str], str] = str) -> str:
        """Say it, with the contender as `name` writes it."""
        return self.why.format(name(self.contender))


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
        return Silence(
            "Only {} was trained to the end: nothing compares with it.", next(iter(able))
        )
    if max(map(len, able.values())) == 1:
        return Silence("One seed: no contender can be called better.")
    return Silence("No two seeds are done by two contenders: none can be called better.")


def _troubles(results: Results, task: str) -> tuple[Trouble, ...]:
    found = []
    for contender in results.contenders:
        finals = results.of(contender, task)
        outcomes = finals or results.of(contender, task, Purpose.TUNING)
        counts = Counter(outcome.status for outcome in outcomes)
        found += [
            Trouble(
                contender=contender,
                status=status,
                count=counts[status],
                total=len(outcomes),
                trials=not finals,
            )
            for status in Status
            if status is not Status.DONE and counts[status]
        ]
    return tuple(found)


def _listed(texts: Sequence[str]) -> str:
    if len(texts) > NAMED:
        return f"{len(texts)} others"
    return " and ".join(filter(None, (", ".join(texts[:-1]), texts[-1])))


def _p(p: float, sign: str = "=") -> str:
    return formatting.p(p, statistics.LEVEL, sign)
