"""The trainings of one contender on one task: trials, if it is tuned, then those that count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.compare.execution import sampling
from hub.compare.result import Purpose, Run

if TYPE_CHECKING:
    from hub.compare.result import Outcome, TaskRecord
    from hub.compare.settings import Settings
    from hub.names.searching import SearchSpace


class Series:
    """Hands out the trainings that can start, in an order that depends on outcomes only."""

    def __init__(
        self,
        settings: Settings,
        contender: str,
        task: TaskRecord,
        *,
        space: SearchSpace | None,
        quick: bool,
    ) -> None:
        self.contender = contender
        self.task = task
        self.quick = quick
        """Whether its trainings share a process."""
        self.runs: list[Run] = []
        """Those handed out so far."""
        self.trials: list[Outcome | None] = [None] * (settings.tune if space else 0)
        self._settings = settings
        self._space = space
        self._judged = False

    @property
    def expected(self) -> int:
        """How many there are in all."""
        return len(self.trials) + self._settings.seeds

    def next(self) -> list[Run]:
        """Return the trainings that can start and were not handed out before."""
        new = [*self._new_trials(), *self._new_finals()]
        self.runs += new
        return new

    def record(self, outcome: Outcome) -> None:
        """Take the outcome of one of them in."""
        if outcome.run.trial is not None:
            self.trials[outcome.run.trial] = outcome

    def _new_trials(self) -> list[Run]:
        if self._space is None or self._judged:
            return []
        known = sampling.proposals(self._settings, self._space, self.trials)
        return [
            self._run(self._settings.seed, Purpose.TUNING, trial=trial, arguments=arguments)
            for trial, arguments in enumerate(known)
            if trial >= len(self.runs)
        ]

    def _new_finals(self) -> list[Run]:
        if self._judged or None in self.trials:
            return []
        self._judged = True
        first, arguments = self._settings.seed, {}
        if self.trials:
            best = sampling.best([one for one in self.trials if one is not None])
            if best is None:  # nothing to judge it by
                return []
            first, arguments = first + 1, best.run.arguments  # seeds that no trial has seen
        return [
            self._run(seed, Purpose.FINAL, arguments=arguments)
            for seed in range(first, first + self._settings.seeds)
        ]

    def _run(self, seed: int, purpose: Purpose, **chosen: object) -> Run:
        steps = self._settings.steps or self.task.steps
        return Run(
            contender=self.contender,
            task=self.task.name,
            seed=seed,
            steps=steps,
            purpose=purpose,
            **chosen,  # type: ignore[arg-type]
        )
