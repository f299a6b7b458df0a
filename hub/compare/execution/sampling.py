"""Which settings to try next when a contender is tuned: it follows from the outcomes so far."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hub.compare.result import Status, digest
from hub.experiments import extra

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hub.compare.result import Outcome
    from hub.compare.settings import Settings
    from hub.names.searching import SearchSpace

OVER = frozenset({Status.DONE, Status.DIVERGED, Status.FAILED})
"""How a trial ends that is not to be tried again."""
RANDOM_SHARE = 4
"""One in so many trials of Optuna is drawn at random, at the beginning; but at most ten."""


def proposals(
    settings: Settings, space: SearchSpace, outcomes: Sequence[Outcome | None]
) -> list[dict[str, Any]]:
    """Return the trials that are known by now, in order: what each adds to `optim_args`.

    The first one adds nothing: a contender's defaults are tried like any other settings, so that
    tuning cannot lose to them. "sobol" knows all trials from the start, the same points of the
    unit cube for every contender whose space has as many dimensions. "optuna" knows one more than
    are done without a gap, as it learns from those.

    Args:
        settings: With the number of trials, the sampler and the seed.
        space: Of the contender.
        outcomes: By trial; None for one that is not done.

    Raises:
        HubError: SciPy or Optuna is not installed.
    """
    if settings.tune == 0:
        return []
    if settings.sampler == "optuna":
        return list(_of_optuna(settings, space, outcomes))
    points = _sobol(len(space.dimensions), settings.tune - 1, settings.seed)
    return [{}, *(space.at(point) for point in points)]


def best(outcomes: Sequence[Outcome | None]) -> Outcome | None:
    """Return the trial with the lowest held-out loss after training; of equal ones the first.

    Trials that diverged or failed are not among them. None: all did.
    """
    done = [one for one in outcomes if one is not None and _loss(one) is not None]
    return min(done, key=lambda one: (_loss(one), one.run.trial or 0), default=None)


def _loss(outcome: Outcome) -> float | None:
    loss = outcome.loss
    return loss if loss is not None and math.isfinite(loss) else None


def _sobol(dimensions: int, count: int, seed: int) -> list[list[float]]:
    """Return points that fill the unit cube evenly; more of them begin with fewer of them.

    Scrambled Sobol points, by `scipy.stats.qmc.Sobol`: of 2**n points, each half, quarter and so
    on of an axis has its share.
    """
    if not dimensions:
        return [[]] * count
    engine = extra.load("scipy.stats").qmc.Sobol(dimensions, scramble=True, rng=seed)
    points: list[list[float]] = engine.random_base2(math.ceil(math.log2(max(count, 1)))).tolist()
    return points[:count]


def _of_optuna(
    settings: Settings, space: SearchSpace, outcomes: Sequence[Outcome | None]
) -> Iterator[dict[str, Any]]:
    """Yield the trials that were run, and the next one that Optuna (TPE) asks for after them.

    What it asks for follows from the seed, the trial's number and the outcomes before it.
    """
    distributions = space.optuna()
    told = []
    yield {}
    for outcome in outcomes[: settings.tune - 1]:
        if outcome is None or outcome.status not in OVER:
            return
        told.append(outcome)
        following = outcomes[len(told)]
        if following is not None:
            yield following.run.arguments
        else:
            yield space.arguments(_asked(settings, space, told, distributions))


def _asked(
    settings: Settings, space: SearchSpace, told: Sequence[Outcome], distributions: dict[str, Any]
) -> dict[str, float]:
    optuna = extra.load("optuna")
    seed = int(digest([settings.seed, len(told)]), 16) % 2**32
    sampler = optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=min(10, settings.tune // RANDOM_SHARE)
    )
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces every study
    try:
        study = optuna.create_study(sampler=sampler)
        study.add_trials([_trial(optuna, space, one, distributions) for one in told])
        found: dict[str, float] = study.ask(distributions).params
    finally:
        optuna.logging.set_verbosity(level)
    return found


def _trial(optuna: Any, space: SearchSpace, outcome: Outcome, distributions: dict[str, Any]) -> Any:
    """Return an outcome as a trial; one that diverged is worse than all that did not."""
    values = space.values(outcome.run.arguments)
    state = optuna.trial.TrialState
    without_loss = state.PRUNED if outcome.status is Status.DIVERGED else state.FAIL
    loss = _loss(outcome)
    return optuna.trial.create_trial(
        params=values,
        distributions={name: distributions[name] for name in values},
        value=loss,
        state=without_loss if loss is None else state.COMPLETE,
    )
