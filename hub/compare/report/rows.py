"""The figures of each contender on a task: its row, and the columns that there are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, NamedTuple

from hub.compare import formatting
from hub.compare.claims import losses
from hub.compare.result import Purpose, Status
from hub.compare.statistics import summarize

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hub.compare.result import Evaluation, Outcome, Results, TaskRecord
    from hub.compare.statistics import Summary


class Mean(NamedTuple):
    """Of evaluations with several seeds."""

    step: float
    loss: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the trainings of one contender on one task gave, those that choose settings aside."""

    contender: str
    outcomes: tuple[Outcome, ...]
    trials: tuple[Outcome, ...]
    """Of its tuning."""
    loss: Summary | None
    """Of the seeds that are done."""
    reached: tuple[Evaluation | None, ...]
    """For each seed, where it reached the target."""
    tokens: int | None
    """In a step."""

    @property
    def to_target(self) -> Mean | None:
        """The mean over the seeds, if all of them reached the target."""
        found = [one for one in self.reached if one is not None]
        if not found or len(found) < len(self.reached):
            return None
        steps, losses, seconds = (fmean(column) for column in zip(*found, strict=True))
        return Mean(steps, losses, seconds)

    @property
    def seconds_to_target(self) -> float | None:
        """Of training, the mean over the seeds."""
        return self.to_target.seconds if self.to_target else None

    @property
    def tokens_to_target(self) -> float | None:
        """The same in tokens."""
        return self.to_target.step * self.tokens if self.to_target and self.tokens else None

    def middle(self, figure: Callable[[Outcome], float | None]) -> float | None:
        """Return the median over the seeds that have a figure."""
        known = [value for one in self.outcomes if (value := figure(one)) is not None]
        return median(known) if known else None

    @property
    def ended(self) -> tuple[str, ...]:
        """How each seed ended that is not done; without seeds, how the trials ended."""
        if not self.outcomes:
            counts = Counter(one.status for one in self.trials)
            return tuple(
                f"{count} of {len(self.trials)} trials {status}" for status, count in counts.items()
            )
        return tuple(
            f"seed {one.run.seed}: {_ended(one)}" if len(self.outcomes) > 1 else _ended(one)
            for one in self.outcomes
            if one.status is not Status.DONE
        )


@dataclass(frozen=True)
class Column:
    """A figure, as tables show it."""

    heading: str
    short: str
    """The heading in a terminal."""
    text: Callable[[Row], str]


def rows(results: Results, task: TaskRecord) -> tuple[Row, ...]:
    """Return a row for each contender, in the study's order.

    Raises:
        HubError: SciPy is missing.
    """
    return tuple(_row(results, contender, task) for contender in results.contenders)


def columns(shown: Sequence[Row]) -> tuple[Column, ...]:
    """Return the columns that say something of these rows; the loss is always one."""
    first, *others = COLUMNS
    known = (one for one in others if any(one.text(row) != formatting.UNKNOWN for row in shown))
    return (first, *known)


def _row(results: Results, contender: str, task: TaskRecord) -> Row:
    outcomes = results.of(contender, task.name)
    found = losses(results, contender, task.name)
    target = task.target
    return Row(
        contender=contender,
        outcomes=outcomes,
        trials=results.of(contender, task.name, Purpose.TUNING),
        loss=summarize(list(found.values())) if found else None,
        reached=() if target is None else tuple(one.reached(target) for one in outcomes),
        tokens=task.tokens,
    )


def _ended(outcome: Outcome) -> str:
    if outcome.status is not Status.DIVERGED:
        return outcome.status.value
    curve = outcome.curve
    so_far = f", loss {formatting.loss(curve[-1].loss)} until then" if curve else ""
    return f"diverged at step {outcome.diverged_at}{so_far}"


def _steps_to_target(row: Row) -> str:
    if row.to_target:
        return formatting.number(row.to_target.step)
    reached = sum(one is not None for one in row.reached)
    return f"{reached} of {len(row.reached)} seeds" if row.reached else formatting.UNKNOWN


def _step_ms(outcome: Outcome) -> float | None:
    return None if outcome.step_seconds is None else 1000 * outcome.step_seconds


def _median(
    heading: str,
    short: str,
    text: Callable[[float | None], str],
    figure: Callable[[Outcome], float | None],
) -> Column:
    return Column(heading, short, lambda row: text(row.middle(figure)))


COLUMNS = (
    Column("held-out loss", "loss", lambda row: formatting.interval(row.loss)),
    Column("steps to target", "to target", _steps_to_target),
    Column("time to target", "time to", lambda row: formatting.duration(row.seconds_to_target)),
    Column("tokens to target", "tokens to", lambda row: formatting.number(row.tokens_to_target)),
    _median("step (ms)", "step ms", formatting.short, _step_ms),
    _median("optimizer, host (ms)", "host ms", formatting.short, lambda one: one.host_ms),
    _median("optimizer, device (ms)", "device ms", formatting.short, lambda one: one.device_ms),
    _median("bandwidth reached", "bandw.", formatting.percent, lambda one: one.bandwidth_fraction),
    _median("state", "state", formatting.size, lambda one: one.state_bytes),
    _median("gradients", "grads", formatting.size, lambda one: one.gradient_bytes),
    _median("peak memory", "peak", formatting.size, lambda one: one.peak_memory_bytes),
)
